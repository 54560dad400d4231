"""Class balance: clips of rare classes are drawn more often.

A clip's share of the draws goes by the inverse frequency of its rarest class. An epoch is as many
draws as there are clips, N: a clip of share p comes N * p times, rounded down or up, on average
exactly. So one of a rare class comes several times an epoch, in other windows and crops each time,
and many of frequent classes do not come at all.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from data import dataset, transforms
from data.dataset import Example, Source


@dataclasses.dataclass(frozen=True)
class ClipLabels:
    """The classes of all examples, laid end to end."""

    flat: np.ndarray  # int [sum of lengths]
    lengths: np.ndarray  # int [N]

    @classmethod
    def of(cls, labels: Sequence[np.ndarray]) -> "ClipLabels":
        """Returns the labels of examples, one array each."""
        flat = np.concatenate([np.zeros(0, np.int32), *labels]).astype(np.int32)
        return cls(flat, np.array([len(each) for each in labels], np.int32))

    @classmethod
    def joined(cls, parts: Sequence["ClipLabels"]) -> "ClipLabels":
        """Returns the labels of several lots of examples, one after the other."""
        pairs = [(part.flat, part.lengths) for part in parts]
        return cls(*(np.concatenate(each) for each in zip(*pairs, strict=True)))


def shares(labels: ClipLabels, classes: int) -> np.ndarray:  # [N] float64, sum 1
    """Returns p: by the inverse frequency of the rarest class; without one, of the commonest.

    Raises:
      ValueError: there are no labels at all.
    """
    counts = np.bincount(labels.flat, minlength=classes)
    if not counts.any():
        raise ValueError("data.class_balanced: no clip has a label; set it to False")
    rarest = np.full(len(labels.lengths), counts.max())
    owner = np.repeat(np.arange(len(labels.lengths)), labels.lengths)
    np.minimum.at(rarest, owner, counts[labels.flat])
    weights = 1 / rarest
    return weights / weights.sum()


@dataclasses.dataclass(frozen=True, eq=False)
class BalancedClips:
    """A source whose example `index` of an epoch is that epoch's draw number `index`."""

    source: Source
    shares: np.ndarray  # [N] float64
    seed: int

    def __len__(self) -> int:
        return len(self.source)

    def example(self, index: int, epoch: int) -> Example:
        """Returns the drawn example."""
        return self.source.example(self.stored(index, epoch), epoch)

    def stored(self, index: int, epoch: int) -> int:
        """Returns the number of the example that a draw gives: what is broken is counted by it."""
        return int(_draws(self, epoch)[index])

    def name(self, stored: int) -> str:
        """Returns what people call a stored example."""
        return dataset.name(self.source, stored)


# Two: a batch may span two epochs.
@functools.lru_cache(maxsize=2)
def _draws(balanced: BalancedClips, epoch: int) -> np.ndarray:  # [N]
    """Returns the examples that an epoch draws: a function of seed and epoch alone.

    One random number for all of them: the draws lie evenly over the shares laid end to end
    ("systematic" sampling), so that no count strays by 1 or more from its expectation.
    """
    examples = len(balanced.shares)
    offset = transforms.generator(balanced.seed, transforms.DRAW, epoch).random()
    ends = np.cumsum(balanced.shares)
    drawn = np.searchsorted(ends, (np.arange(examples) + offset) / examples, side="right")
    return np.minimum(drawn, examples - 1)  # the last end may be rounded to less than 1
