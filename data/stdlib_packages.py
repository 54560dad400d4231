"""`stdlib_packages`: which package of Python's standard library a stretch of its text comes from.

A small, real classification task that every machine has, and held out by file in the same way as
`stdlib_text`: a model that was pre-trained on the training files of the one has met no validation
file of the other. The classes are ten folders that all supported Python versions have, with files
on both sides.
"""

import dataclasses
import functools
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

from data import labelled_text, stdlib_text, text, transforms
from data.dataset import Dataset, DatasetInfo, Example

PACKAGES = (
    "asyncio",
    "concurrent",
    "ctypes",
    "email",
    "encodings",
    "idlelib",
    "importlib",
    "multiprocessing",
    "tkinter",
    "unittest",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Stretches:
    """Random access to windows of a stream for each class.

    In training every window is shifted anew in each epoch, in evaluation they lie end to end.
    """

    streams: tuple[np.ndarray, ...]  # uint8, of each class
    seq_len: int
    seed: int
    train: bool

    def __len__(self) -> int:
        return sum(self._counts)

    def example(self, index: int, epoch: int) -> Example:
        """Returns {"texts": (bytes,), "label": int}."""
        label, place = 0, index
        while place >= self._counts[label]:
            place -= self._counts[label]
            label += 1
        stream = self.streams[label]
        start = place * self.seq_len
        if self.train:
            rng = transforms.generator(self.seed, transforms.OFFSET, epoch, index)
            start = int(rng.integers(len(stream) - self.seq_len, endpoint=True))
        return {"texts": (stream[start : start + self.seq_len].tobytes(),), "label": label}

    @property
    def _counts(self) -> list[int]:
        return [text.count(len(stream), self.seq_len, train=True) for stream in self.streams]


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split."""
    source = Stretches(streams(split), config.seq_len, seed, train)
    return labelled_text.dataset(source, config, numbers=False)


def info(config: Any) -> DatasetInfo:
    """Returns the facts; examples are stretches of `config.seq_len` bytes."""
    examples = {
        split: len(Stretches(streams(split), config.seq_len, 0, split == "train"))
        for split in ("train", "validation")
    }
    return DatasetInfo(name="stdlib_packages", examples=examples, labels=PACKAGES)


@functools.cache
def streams(split: str) -> tuple[np.ndarray, ...]:
    """Returns the bytes of each package in a split.

    Raises:
      FileNotFoundError: this Python has no readable standard library.
    """
    documents = stdlib_text.corpus(Path(sysconfig.get_path("stdlib")))
    found = {name: [] for name in PACKAGES}
    for path, content in documents.items():
        folder = path.partition("/")[0]
        if folder in found and stdlib_text.split_of(path) == split:
            found[folder].append(content)
    return tuple(np.frombuffer(b"\n".join(parts), np.uint8) for parts in found.values())
