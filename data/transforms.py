"""Transforms that fit any data, and the generator that makes their randomness reproducible.

A data set lists its transforms in a visible tuple. Each is a frozen dataclass called as
`(example, rng) -> example`; `apply` runs them in order.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from data.dataset import Example, Transform

# Streams of random numbers that never overlap, whatever the seed.
ORDER, EXAMPLE, OFFSET, DRAW, DOCUMENTS = range(5)


def generator(seed: int, stream: int, epoch: int, index: int = 0) -> np.random.Generator:
    """Returns the generator of (seed, stream, epoch, index): a function of these numbers alone.

    Philox is counter-based: seed and stream are its key, epoch and index the high words of its
    counter, so that two generators cannot run into each other before 2**128 draws.
    """
    bits = np.random.Philox(key=[seed, stream], counter=[0, 0, epoch, index])
    return np.random.Generator(bits)


def apply(transforms: Iterable[Transform], example: Example, rng: np.random.Generator) -> Example:
    """Returns the example after all transforms, in order."""
    for transform in transforms:
        example = transform(example, rng)
    return example


@dataclasses.dataclass(frozen=True)
class Keep:
    """Drops every field but the named ones; a missing one is an error."""

    names: tuple[str, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Returns the example with the named fields alone."""
        missing = [name for name in self.names if name not in example]
        if missing:
            raise ValueError(f"Keep: no field {missing} in an example with {sorted(example)}")
        return {name: example[name] for name in self.names}


@dataclasses.dataclass(frozen=True)
class Cast:
    """Turns one field into an array of a dtype (the label of a source is a Python int)."""

    name: str
    dtype: Any

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Replaces the field."""
        return example | {self.name: np.asarray(example[self.name], self.dtype)}
