"""Rows that are alike, by their cosine: nearest to a query, most similar pairs, clusters.

A zero row has a cosine of 0 with everything, and is in no cluster. Nearest rows and clusters are
scikit-learn's (`pip install scikit-learn`, the extra `search`); pairs need no library.
"""

from typing import Any

import numpy as np

from perceiver.pretrained.embedding import unit

_ROWS = 1024  # of a block of cosines, which takes 4 MiB
_MOST_TO_MERGE = 20_000  # agglomerative clustering holds all distances: 1.6 GB of so many rows


def nearest(
    embeddings: np.ndarray,  # [n, E]
    queries: np.ndarray,  # [q, E]
    k: int,
) -> tuple[np.ndarray, np.ndarray]:  # int [q, k], float [q, k]
    """Returns the rows most similar to each query, best first, and their cosines. Exact.

    Raises:
      ImportError: scikit-learn is not installed.
      ValueError: there are no k rows, or queries of another size.
    """
    if queries.ndim != 2 or queries.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"embeddings {list(embeddings.shape)} and queries {list(queries.shape)} are from "
            "different models: embed both with the same one"
        )
    _check_count("k", k, len(embeddings), "rows")
    search = sklearn().neighbors.NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine")
    distances, places = search.fit(embeddings).kneighbors(queries)
    return places, 1 - distances


def most_similar_pairs(
    embeddings: np.ndarray,  # [n, E]
    k: int,
) -> tuple[np.ndarray, np.ndarray]:  # int [k, 2], float32 [k]
    """Returns the k pairs of different rows with the largest cosines, best first. Exact.

    All n (n - 1) / 2 are computed, a block of 1024 x 1024 at a time. Equal ones are in the order of
    their rows.

    Raises:
      ValueError: there are no k pairs, or a row is not finite.
    """
    count = len(embeddings)
    _check_count("k", k, count * (count - 1) // 2, "pairs")
    pairs, cosines = np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    for first in range(0, count, _ROWS):
        left = _block(embeddings, first)
        for second in range(first, count, _ROWS):
            block = left @ _block(embeddings, second).T
            least = cosines[-1] if len(cosines) == k else -np.inf
            rows, columns = np.nonzero(block >= least)
            if first == second:  # each pair once, and no row with itself
                above = rows < columns
                rows, columns = rows[above], columns[above]
            places = np.stack([rows + first, columns + second], axis=1)
            pairs = np.concatenate([pairs, places])
            cosines = np.concatenate([cosines, block[rows, columns]])
            best = np.lexsort((pairs[:, 1], pairs[:, 0], -cosines))[:k]
            pairs, cosines = pairs[best], cosines[best]
    return pairs, cosines


def _block(embeddings: np.ndarray, first: int) -> np.ndarray:
    """Returns some unit rows."""
    rows = np.asarray(embeddings[first : first + _ROWS], np.float32)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(f"row {first + bad[0]} is not finite: embed its text again")
    return unit(rows)


def clusters(
    embeddings: np.ndarray,  # [n, E]
    *,
    count: int | None = None,
    threshold: float | None = None,
) -> np.ndarray:  # int [n]
    """Returns the cluster of each row, 0 being the largest; -1 of a zero row.

    Args:
      embeddings: rows.
      count: so many clusters, by k-means of unit rows (k-means++, the best of 4 starts, seed 0).
      threshold: clusters are merged while the mean cosine between their rows is at least this
        (average linkage); for up to 20,000 rows.

    Raises:
      ImportError: scikit-learn is not installed.
      ValueError: not one of count and threshold, or one that the rows do not allow.
    """
    if (count is None) == (threshold is None):
        raise ValueError(f"give either count or threshold, got {count=} and {threshold=}")
    labels = np.full(len(embeddings), -1)
    real = np.flatnonzero(np.any(embeddings, axis=1))
    rows = unit(np.asarray(embeddings[real], np.float32))
    if count is not None:
        _check_count("count", count, len(rows), "rows that are not zero")
        method = sklearn().cluster.KMeans(n_clusters=count, n_init=4, random_state=0)
    else:
        if not -1 <= threshold <= 1:
            raise ValueError(f"threshold is a cosine in [-1, 1], got {threshold}")
        if not 2 <= len(rows) <= _MOST_TO_MERGE:
            raise ValueError(
                f"threshold works on 2 to {_MOST_TO_MERGE:,} rows, got {len(rows):,}; give a "
                "number of clusters instead"
            )
        method = sklearn().cluster.AgglomerativeClustering(
            n_clusters=None, metric="cosine", linkage="average", distance_threshold=1 - threshold
        )
    labels[real] = _by_size(method.fit_predict(rows))
    return labels


def _by_size(labels: np.ndarray) -> np.ndarray:
    """Returns labels numbered anew: 0 is the most frequent; of equals, what comes first."""
    _, first, inverse, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    place = np.empty(len(sizes), int)
    place[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return place[inverse]


def sklearn() -> Any:
    """Returns scikit-learn, or says how to get it."""
    try:
        import sklearn
        import sklearn.cluster
        import sklearn.neighbors
    except ImportError as error:
        raise ImportError(
            "nearest sentences and clusters need the extra `search`: pip install scikit-learn"
        ) from error
    return sklearn


def _check_count(name: str, count: int, most: int, what: str) -> None:
    if not 1 <= count <= most:
        raise ValueError(f"{name}={count}, but there are {most:,} {what}: choose 1 to {most:,}")
