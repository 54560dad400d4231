"""What a data set is to this package: a random-access source, its transforms, its facts."""

import dataclasses
from typing import Any, Protocol

Example = dict[str, Any]


class BrokenExample(ValueError):  # noqa: N818 - said of the data, not of the program
    """An example that cannot be read (a picture that does not decode), with the reason.

    Raised by a source or a transform. The example is left out of its batch and counted; any other
    error ends the run.
    """


class Source(Protocol):
    """Random access to raw examples; picklable, so that worker processes can hold a copy.

    A source may also have `name(stored) -> str`, what people call an example (a file's name), and,
    if it draws examples, `stored(index, epoch) -> int`, which one it gives.
    """

    def __len__(self) -> int:
        """Returns the number of examples of one epoch."""

    def example(self, index: int, epoch: int) -> Example:
        """Returns raw example `index`; a source may vary with the epoch (text windows do)."""


def name(source: Source, stored: int) -> str:
    """Returns what people call an example: the source's name for it, or its number."""
    named = getattr(source, "name", None)
    return named(stored) if named else f"example {stored}"


def stored(source: Source, index: int, epoch: int) -> int:
    """Returns the number by which an example is named and counted: `index`, unless it is drawn."""
    draw = getattr(source, "stored", None)
    return draw(index, epoch) if draw else index


class Transform(Protocol):
    """A small frozen dataclass; all its randomness comes from the generator that it is given."""

    def __call__(self, example: Example, rng: Any) -> Example:
        """Returns a new example; the one passed in is left as it is."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split, ready to be batched."""

    source: Source
    transforms: tuple[Transform, ...]
    # Threads that build batches ahead. Decoding pictures releases Python's lock and gains from
    # many; data in memory does not, and one thread already overlaps with the device.
    threads: int = 1


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Facts that tasks, reports and exported models need without reading an example."""

    name: str
    examples: dict[str, int]  # "train" and "validation" -> examples of one epoch
    labels: tuple[str, ...] | None = None  # class names by label; None without classes
    # Of several tasks: classes of each, whose names lie side by side in `labels`; 1: a number.
    tasks: dict[str, int] = dataclasses.field(default_factory=dict)
    texts: int = 1  # that a model reads apart: 2 of a pair, 3 of a triplet
    image_shape: tuple[int, int, int] | None = None  # height, width, channels, as models get them
    # Of pixels in [0, 1], per channel: the model's input is (x - 255 * mean) / (255 * std).
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_fraction: float = 1.0  # of the shorter side, which evaluation keeps
