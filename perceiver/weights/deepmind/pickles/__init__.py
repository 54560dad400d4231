"""Reads the pickles that DeepMind released, without running them.

They hold mappings of numpy arrays, pickled from Haiku's own mapping types. `read` knows these types
by name and nothing else; it imports and calls no object of the file, and leaves the arrays' data
where it is until it is asked for. What else is in a file is refused by its name.
"""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver.weights.deepmind.pickles.arrays import MEANINGS, Array
from perceiver.weights.deepmind.pickles.instructions import run
from perceiver.weights.deepmind.pickles.machine import Machine, describe
from perceiver.weights.deepmind.pickles.source import PickledText, Source, UnsafePickleError
from perceiver.weights.stored import StoredArray

__all__ = ["UnsafePickleError", "read"]

MAX_DEPTH = 64
MAX_ITEMS = 20_000  # as they appear: what the file holds once, it can show exponentially often
_REMEDY = (
    "only numpy arrays, numbers and strings in nested dicts are supported; in the program that "
    "made the file, convert everything to these (np.asarray for arrays) and pickle it again"
)
_TORCH = "load it with torch and save it as safetensors"
_PAGE = "page: the download failed"
_LOOKS = {  # the first bytes of other files
    b"PK": f"a zip archive, perhaps a torch checkpoint: {_TORCH}",
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9": f"an old torch checkpoint: {_TORCH}",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file with `git lfs pull`",
    b"\x93NUMPY": "an .npy file of one array",
    b"\x89HDF": "an HDF5 file",
    b"<!doctype": f"an HTML {_PAGE}",
    b"<html": f"an HTML {_PAGE}",
    b"<?xml": f"an XML {_PAGE}",
    b"{": "a JSON file",
}


def read(path: str | os.PathLike) -> Mapping[str, Any]:
    """Returns a file's nested dicts; arrays and numpy scalars are `StoredArray`, not read yet.

    Other values are None, bool, int, float, str, and tuples of all these.

    Raises:
      FileNotFoundError: there is no such file.
      UnsafePickleError: (a ValueError) the file is broken, or holds anything else.
    """
    path = pathlib.Path(path)
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise UnsafePickleError(f"{path} is a folder or a device; a pickle is a single file")
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if looks := _looks_like(file.read(512)):
            raise UnsafePickleError(f"{path} is not a pickle of weights: it looks like {looks}")
        machine = Machine(Source(file, status.st_size), MEANINGS)
        try:
            root = run(machine)
            if type(root) is not dict:
                raise ValueError(f"the file holds {describe(root)} instead of a mapping")
            return _Reader(path, status).plain(root, ())
        except ValueError as error:
            raise UnsafePickleError(
                f"{path}, byte {machine.place}: {error}\n({_REMEDY})"
            ) from error


def _looks_like(head: bytes) -> str:
    """Says what a file is by its first bytes, "" if it may be a pickle."""
    if not head:
        return "an empty file: the download failed"
    if head[8:10] == b'{"':
        return "a safetensors file"
    for start, name in _LOOKS.items():
        if head.startswith(start) or head.lstrip().lower().startswith(start):
            return name
    return ""


@dataclasses.dataclass
class _Reader:
    """Makes the result from the machine's descriptions."""

    path: pathlib.Path
    status: os.stat_result
    items: int = 0

    def plain(self, node: Any, keys: tuple[str, ...]) -> Any:
        """Returns a description as the plain value that `read` promises."""
        where = "/".join(keys)[:200] or "the top"
        self.items += 1
        if len(keys) > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels, or a mapping that contains itself")
        if self.items > MAX_ITEMS:
            raise ValueError(f"more than {MAX_ITEMS:,} items, counted as often as they appear")
        if type(node) is dict:
            return {key: self.plain(value, (*keys, key)) for key, value in node.items()}
        if type(node) in (list, tuple):
            return tuple(self.plain(value, (*keys, str(i))) for i, value in enumerate(node))
        if type(node) is Array and node.dtype is not None:
            dtype = node.dtype.newbyteorder("=")
            return StoredArray(node.shape, dtype, lambda: self.load(node, where))
        if type(node) is PickledText and node.value is not None:
            return node.value
        if node is None or type(node) in (bool, int, float):
            return node
        raise ValueError(
            f"{where} is {describe(node)}" + " without its data" * (type(node) is Array)
        )

    def load(self, node: Array, where: str) -> np.ndarray:
        """Reads one array; the file must still be the one that was checked."""
        with self.path.open("rb") as file:
            now = os.fstat(file.fileno())
            if (now.st_size, now.st_mtime_ns) != (self.status.st_size, self.status.st_mtime_ns):
                raise ValueError(f"{self.path} has changed since it was opened; load it again")
            try:
                return node.read(file)
            except ValueError as error:
                raise UnsafePickleError(f"{self.path}, {where}: {error}") from error
