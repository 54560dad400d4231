"""Arrays in a file: shape and dtype are known at once, values are read when they are asked for.

So a checkpoint is checked against a model before any of it is read, and then read array by array:
no more than the model itself and one array are in memory at a time.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """One array of a file, not read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]  # returns an array of this shape and dtype that owns its memory

    @classmethod
    def of(cls, array: np.ndarray) -> "StoredArray":
        """Wraps an array that is in memory already."""
        return cls(tuple(array.shape), array.dtype, lambda: array)


Arrays = Mapping[str, StoredArray]  # keys: "module path/name", or the names of a state dict
