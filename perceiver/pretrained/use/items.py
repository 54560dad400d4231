"""One thing or several, as Python users have them at hand."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from perceiver.media.images import Picture

_TAKEN = (
    "texts (str or UTF-8 bytes), files, open files, encoded bytes, Pillow images, arrays (NumPy's, "
    "or what NumPy takes, such as JAX's and PyTorch's), or a list, Series or generator of these"
)


def plain(given: Any) -> Any:
    """Returns what a user gave as strings, bytes, paths, pictures, arrays, or a list of these.

    Open files are read; arrays of other libraries become NumPy's; arrays of strings, generators and
    sets become lists. A tuple stays one, for it is a pair.

    Raises:
      ValueError: none of these, or an empty list.
    """
    if isinstance(given, str | bytes | os.PathLike | Picture):
        return given
    if isinstance(given, bytearray | memoryview):
        return bytes(given)
    if callable(getattr(given, "read", None)):
        return given.read()
    if hasattr(given, "__array__"):
        given = np.asarray(given)
        if given.dtype.kind not in "OUST":
            if not given.size:
                raise ValueError(f"an array {given.shape} has nothing in it")
            return given
        given = given.tolist()  # texts, of any dtype
        return plain(given)
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"cannot read {type(given).__name__} {given!r}"[:100] + f": give {_TAKEN}")
    items = [plain(item) for item in given]
    if not items:
        raise ValueError("there is nothing in the list: give at least one")
    return tuple(items) if isinstance(given, tuple) else items


def texts(given: Any) -> None:
    """Refuses what is no text, nor a list or pair of texts.

    Raises:
      ValueError: names its place and what it is.
    """
    for number, item in enumerate(given if isinstance(given, list) else [given]):
        for part in item if isinstance(item, tuple) else [item]:
            if not isinstance(part, str | bytes):
                what = type(part).__name__
                what += f" {part.dtype} {part.shape}" if isinstance(part, np.ndarray) else ""
                raise ValueError(f"text {number} must be str or UTF-8 bytes, got {what}")


def several(given: Any) -> bool:
    """Returns whether a user gave a list (or a batch of pictures) rather than one thing."""
    if isinstance(given, np.ndarray):
        return given.ndim == 4
    return isinstance(given, Sequence) and not isinstance(given, str | bytes)


def listed(given: Any) -> Sequence[Any]:
    """Returns one thing as a list of one."""
    return given if several(given) else [given]


def in_batches(given: Any, size: int, use: Callable[[Any], np.ndarray]) -> np.ndarray:
    """Returns `use` of one thing or several, `size` at a time: so few are decoded at once."""
    given = listed(given)
    return np.concatenate([use(given[i : i + size]) for i in range(0, len(given), size)])
