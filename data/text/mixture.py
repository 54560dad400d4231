"""Mixtures of texts: shares by tokens, each text read at its own pace.

An epoch of a mixture ends before one of its texts would come again: the text that its share uses up
first sets the length. The others go on where they were in the next epoch, and begin again in
another order when an epoch's part of them is left no more. So no window comes twice in an epoch.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from data.dataset import Example, Source


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Random access to examples of several sources, in fixed numbers of each an epoch."""

    sources: tuple[Source, ...]
    counts: tuple[int, ...]  # examples of each source in an epoch, at most all it has

    def __len__(self) -> int:
        return sum(self.counts)

    def example(self, index: int, epoch: int) -> Example:
        """Returns an example of its source, with that source's number as `source`."""
        for number, (source, count) in enumerate(zip(self.sources, self.counts, strict=True)):
            if index < count:
                own_epoch, part = divmod(epoch, len(source) // count)
                example = source.example(part * count + index, own_epoch)
                return example | {"source": np.int32(number)}
            index -= count
        raise IndexError(
            f"example {index + len(self)} is outside a mixture of {len(self)} examples"
        )


def counts(
    weights: Sequence[float], mean_tokens: Sequence[float], lengths: Sequence[int]
) -> list[int]:
    """Returns how many examples of each source an epoch has, so that tokens are as the weights.

    Args:
      weights: of the sources; only their proportions count.
      mean_tokens: of an example of each source.
      lengths: examples that each source has; of one all are taken, or nearly so.

    Raises:
      ValueError: a weight that is not positive, or of which not one example is left.
    """
    if not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"data.weights must be positive numbers, got {tuple(weights)}")
    shares = np.array(weights, np.float64) / np.array(mean_tokens, np.float64)
    shares /= shares.sum()
    examples = int((np.array(lengths) / shares).min() + 1e-6)  # a share like 1/3 rounds either way
    exact = examples * shares
    whole = np.floor(exact).astype(int)
    # The largest remainders get what rounding down has left.
    whole[np.argsort(whole - exact, kind="stable")[: examples - whole.sum()]] += 1
    whole = np.minimum(whole, lengths)
    if not whole.all():
        raise ValueError(
            f"data.weights {tuple(weights)}: an epoch of {examples} windows would have none from "
            "the text with the smallest weight; raise that weight, or prepare more of the other "
            "texts"
        )
    return whole.tolist()
