"""A fixed random part of a training split: how well is learned from little?"""

import dataclasses

import numpy as np

from data import dataset
from data.dataset import Dataset, Example, Source

_STREAM = 20_211_029  # of the order in which parts grow: the same for every data set and seed


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Random access to some examples of another source."""

    source: Source
    indices: np.ndarray  # [n], of that source

    def __len__(self) -> int:
        return len(self.indices)

    def example(self, index: int, epoch: int) -> Example:
        """Returns one of them."""
        return self.source.example(int(self.indices[index]), epoch)

    def name(self, stored: int) -> str:
        """Returns what people call an example."""
        return dataset.name(self.source, stored)

    def stored(self, index: int, epoch: int) -> int:
        """Returns the number by which an example is named."""
        return dataset.stored(self.source, int(self.indices[index]), epoch)


def first(whole: Dataset, examples: int) -> Dataset:
    """Returns a data set of so many examples; larger parts hold the smaller ones.

    Raises:
      ValueError: it has not so many.
    """
    total = len(whole.source)
    check(examples, total)
    # RandomState's stream is frozen for ever (NEP 19), a Generator's may change with numpy.
    order = np.random.RandomState(_STREAM).permutation(total)
    return dataclasses.replace(whole, source=Subset(whole.source, np.sort(order[:examples])))


def check(examples: int, total: int) -> None:
    """Raises ValueError unless a part of so many examples can be had."""
    if not 0 < examples <= total:
        raise ValueError(
            f"data.train_examples={examples} must be 1 to {total}, the examples of the training "
            "split; 0: all"
        )
