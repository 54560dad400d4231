"""How well embeddings find their partners among all of a split."""

import numpy as np

_BLOCK = 1024  # queries at a time, so that no array has the size of queries x candidates


def ranks(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:  # [N, E] twice -> int [N]
    """Returns the rank, from 1, of each query's own candidate by cosine similarity.

    Ties count against it: an encoder that gives all texts one embedding finds nothing.
    """
    queries, candidates = _unit(queries), _unit(candidates)
    places = []
    for start in range(0, len(queries), _BLOCK):
        scores = queries[start : start + _BLOCK] @ candidates.T  # [block, N]
        own = np.diagonal(scores, offset=start)[:, None]
        places.append((~(scores < own)).sum(axis=1))  # a NaN is ahead, too
    return np.concatenate(places)


def summary(ranks: np.ndarray) -> dict[str, float]:  # int [N]
    """Returns recall at 1 and at 10, and the mean reciprocal rank."""
    return {
        "recall_1": float((ranks <= 1).mean()),
        "recall_10": float((ranks <= 10).mean()),
        "mrr": float((1 / ranks).mean()),
    }


def chance(candidates: int) -> dict[str, float]:
    """Returns what a random order achieves on average."""
    return {
        "recall_1": 1 / candidates,
        "recall_10": min(1.0, 10 / candidates),
        "mrr": float((1 / np.arange(1, candidates + 1)).sum() / candidates),
    }


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
