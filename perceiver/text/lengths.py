"""Batches of texts of about one length: little padding, and few lengths to compile for.

What is padded to the longest of a batch costs as much as that. Sorted by length before they are
cut into batches, texts have neighbours as long as themselves (Sentence-BERT, section 7, calls it
smart batching).
"""

from collections.abc import Iterable, Sequence

import numpy as np

SHORTEST = 64  # tokens: texts are padded to this, or to the next power of two


def padded(longest: int, most: int) -> int:
    """Returns the length that a batch is padded to: a power of two, or all that there is.

    Args:
      longest: tokens of the longest text in it.
      most: tokens that the model reads.
    """
    return min(max(SHORTEST, 1 << (longest - 1).bit_length()), most)


def batches(sizes: Sequence[int] | np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Returns the places of all texts, cut into batches, the longest texts first.

    What does not fit into memory so fails at once. Texts of equal length stay in their order.

    Args:
      sizes: tokens of each text.
      batch_size: texts of a batch; the last one may have fewer.
    """
    order = np.argsort(-np.asarray(sizes, np.int64), kind="stable")
    return in_order(order, batch_size)


def in_order(places: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Returns places cut into batches as they are."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return [places[i : i + batch_size] for i in range(0, len(places), batch_size)]


def cost(sizes: np.ndarray, cut: Iterable[np.ndarray], most: int) -> int:
    """Returns the tokens that a model reads in all batches, padding included.

    Args:
      sizes: tokens of each text [n].
      cut: places of the texts of each batch.
      most: tokens that the model reads.
    """
    return sum(len(places) * padded(int(sizes[places].max()), most) for places in cut)
