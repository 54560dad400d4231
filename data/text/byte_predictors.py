"""What counting alone achieves on masked bytes: unigram and bigram predictors.

A masked language model must beat both on the same masks before its loss means anything. The
bigram is a first-order Markov chain: it predicts a hidden byte from the last visible byte on its
left, d places away, by the d-step transition matrix restricted to bytes that may be hidden, which
is exact for such a chain. It is a fair baseline for whole hidden words, where the direct neighbour
is mostly hidden as well. Where nothing on the left is visible it falls back on the unigram.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from perceiver.text import tokenizer

_CHUNK = 2**22  # bytes counted at a time: their pairs take 12 times as much memory


@dataclasses.dataclass(frozen=True, eq=False)
class BytePredictors:
    """Probabilities fitted on a stream of bytes; bytes that are never hidden have none."""

    unigram: np.ndarray  # [256] f64, sums to 1
    # [256, 256] f64: row = this byte, column = the next, if it may be hidden; a row sums to the
    # probability that it may.
    bigram: np.ndarray


def fit(
    stream: np.ndarray, *, hidden: np.ndarray | None = None, alpha: float = 0.1
) -> BytePredictors:
    """Counts bytes and pairs of bytes.

    Args:
      stream: the training text, [T] uint8.
      hidden: [256] bool, the bytes that the masking can hide (`tokenising.hidden_bytes`); None: all
        A model soon learns that white space is never hidden, so the counters must know it too: on
        the standard library it is worth 0.6 bits per byte to the unigram, 0.8 to the bigram.
      alpha: added to every count, so that nothing is impossible.

    Returns:
      The `BytePredictors`.

    Raises:
      ValueError: alpha is not positive, or the stream is empty.
    """
    if alpha <= 0 or not len(stream):
        raise ValueError(
            f"fit needs alpha > 0 and a non-empty text, got alpha {alpha}, {len(stream)} bytes"
        )
    may_hide = np.ones(256) if hidden is None else hidden.astype(np.float64)
    singles, pairs = np.zeros(256, np.int64), np.zeros(256**2, np.int64)
    for start in range(0, len(stream), _CHUNK):
        chunk = stream[start : start + _CHUNK + 1]  # and the next one's first byte, for the pair
        singles += np.bincount(chunk[:_CHUNK], minlength=256)
        pairs += np.bincount(chunk[:-1].astype(np.int32) * 256 + chunk[1:], minlength=256**2)
    counts = (singles + alpha) * may_hide
    pairs = pairs.reshape(256, 256) + alpha
    bigram = pairs / pairs.sum(axis=1, keepdims=True) * may_hide
    return BytePredictors(counts / counts.sum(), bigram)


def score(
    predictors: BytePredictors, batches: Iterable[dict[str, np.ndarray]]
) -> dict[str, tuple[float, int]]:
    """Returns {"unigram": (bits, bytes), "bigram": (bits, bytes)} over the masked bytes of batches.

    Bits are summed, `bytes` counts the masked ones: their ratio is bits per masked byte. The sums
    of several hosts add up. With no masked byte both are 0.

    Args:
      predictors: fitted on the training split.
      batches: masked-LM batches with `targets`, `input_mask` and `target_mask`, each [B, M].
    """
    cases = [_cases(**{name: batch[name] for name in _FIELDS}) for batch in batches]
    target, context, distance = np.concatenate([np.zeros((3, 0), np.int64), *cases], axis=1)
    bits = -np.log2(predictors.unigram[target])
    unigram = float(bits.sum())
    steps = np.eye(256)  # row x: the distribution of the d-th byte after x, all d being hidden
    for d in range(1, distance.max(initial=0) + 1):
        steps = steps @ predictors.bigram
        steps /= steps.sum(axis=1, keepdims=True)
        at = distance == d
        bits[at] = -np.log2(steps[context[at], target[at]])
    return {"unigram": (unigram, len(target)), "bigram": (float(bits.sum()), len(target))}


_FIELDS = ("targets", "input_mask", "target_mask")


def _cases(targets, input_mask, target_mask) -> np.ndarray:  # each [B, M] -> [3, masked bytes]
    """Returns (hidden byte, last visible byte on the left, distance to it; 0: there is none)."""
    place = np.broadcast_to(np.arange(targets.shape[1]), targets.shape)  # [B, M]
    visible = np.where(input_mask & ~target_mask, place, -1)
    last = np.maximum.accumulate(visible, axis=1)
    row, column = np.nonzero(target_mask)
    last = last[row, column]
    byte = targets.astype(np.int64) - tokenizer.OFFSET
    return np.stack([byte[row, column], byte[row, last], np.where(last < 0, 0, column - last)])
