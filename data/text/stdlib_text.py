"""`stdlib_text`: sources and documentation of the Python standard library that runs this program.

About 11 MB of English and Python that every machine has. What is left out: tests, installed
packages, and generated files (character tables of `encodings`, build settings). Files of identical
content count once. The split is by file, from a hash of the path inside the library: one in ten is
held out, nothing is in both, and a file stays on its side from one Python version to the next.
The corpus itself differs a little between Python versions, so numbers are comparable only under
the same one.
"""

import functools
import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import Dataset, DatasetInfo
from data.text import windows

_SUFFIXES = {".py", ".txt", ".rst", ".html"}
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_VALIDATION_IN = 10  # one file in ten


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns masked windows of a split."""
    return windows.masked_lm(read(split), config, seed=seed, train=train)


def info(config: Any) -> DatasetInfo:
    """Returns the facts; examples are windows of text, see `windows.window_bytes`."""
    size = windows.window_bytes(config)
    examples = {
        split: windows.count(len(read(split)), size, train=split == "train")
        for split in ("train", "validation")
    }
    return DatasetInfo(name="stdlib_text", examples=examples)


def stream(config: Any, split: str) -> np.ndarray:  # [T] uint8, read-only
    """Returns the bytes of a split; nothing of the config changes them."""
    return read(split)


@functools.cache
def read(split: str) -> np.ndarray:  # [T] uint8, read-only
    """Returns the bytes of a split, its files in the order of their paths.

    Raises:
      FileNotFoundError: this Python has no readable standard library.
    """
    documents = corpus(Path(sysconfig.get_path("stdlib")))
    chosen = [content for path, content in documents.items() if split_of(path) == split]
    # A line break in between: no word reaches from one file into the next.
    return np.frombuffer(b"\n".join(chosen), np.uint8)


def split_of(path: str) -> str:
    """Returns the split of a path relative to the library, in POSIX form."""
    number = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "big")
    return "train" if number % _VALIDATION_IN else "validation"


def corpus(root: Path) -> dict[str, bytes]:
    """Returns relative path -> content of the files used, in the order of the paths.

    Raises:
      FileNotFoundError: no such file under `root`.
    """
    documents = {path.relative_to(root).as_posix(): path.read_bytes() for path in _files(root)}
    first = {}  # content -> the smallest path that has it
    for path in sorted(documents):
        first.setdefault(documents[path], path)
    kept = {path: content for content, path in first.items() if _is_written(content)}
    if not kept:
        raise FileNotFoundError(
            f"no source files of the Python standard library under {root}: this Python ships them "
            "compiled or zipped; use a full installation, or another data.source"
        )
    return kept


def _files(folder: Path) -> Iterator[Path]:
    """Walks without entering folders that are left out, nor following links out of the library."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_symlink() or path.name in _LEFT_OUT or path.name.startswith("_sysconfigdata"):
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.suffix in _SUFFIXES:
            yield path


def _is_written(content: bytes) -> bool:
    """True for a file that a person wrote: not empty, not a generated character table."""
    return bool(content) and b"gencodec.py" not in content[:300]
