"""Part of a split: to see how well is learned from little, or to evaluate in little time."""

import dataclasses
from typing import Any

import numpy as np

from data import dataset
from data.dataset import Dataset, Example, Source

_STREAM = 20_211_029  # of the order in which parts grow: the same for every data set and seed


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Random access to some examples of another source."""

    source: Source
    indices: np.ndarray  # [n], of that source, ascending

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


def of_split(whole: Dataset, config: Any, split: str) -> Dataset:
    """Returns the part of a split that a config asks for.

    Args:
      whole: the split.
      config: the `data` section; `train_examples` are a fixed random part, of which larger ones
        hold the smaller; `eval_examples` are evenly spaced. 0: all.
      split: "train" or "validation".

    Raises:
      ValueError: it has not so many.
    """
    asked, total = _asked(config)[split], len(whole.source)
    if not asked:
        return whole
    _check(asked, total, split)
    if split == "train":
        # RandomState's stream is frozen for ever (NEP 19), a Generator's may change with numpy.
        indices = np.sort(np.random.RandomState(_STREAM).permutation(total)[:asked])
    else:
        indices = np.arange(asked) * total // asked
    return dataclasses.replace(whole, source=Subset(whole.source, indices))


def counts(examples: dict[str, int], config: Any) -> dict[str, int]:
    """Returns how many examples each split has of those in `examples`; errors as above."""
    asked = {split: n for split, n in _asked(config).items() if n}
    for split, n in asked.items():
        _check(n, examples[split], split)
    return examples | asked


def _asked(config: Any) -> dict[str, int]:
    return {"train": config.train_examples, "validation": config.eval_examples}


def _check(asked: int, total: int, split: str) -> None:
    if not 0 < asked <= total:
        field = {"train": "train_examples", "validation": "eval_examples"}[split]
        raise ValueError(
            f"data.{field}={asked} must be between 1 and {total}, the size of the {split} split; "
            "0: all"
        )
