"""Masked language modelling on windows of a byte stream.

A corpus is one stream of bytes: its documents laid end to end. Windows are cut where the sequence
length says, without regard to words or documents, as in byte-level pre-training generally. Any
other source of {"bytes": uint8} examples may take their place: `dataset` does the rest.
"""

import dataclasses
from typing import Any

import numpy as np

from data import transforms
from data.dataset import Dataset, Example, Source
from data.text import masking, tokenising
from data.text.tokenising import window_bytes
from data.transforms import Keep

FIELDS = ("tokens", "targets", "input_mask", "target_mask")


def masked_lm(stream: np.ndarray, config: Any, *, seed: int, train: bool) -> Dataset:
    """Returns masked windows of a stream [T] uint8, as configured.

    Raises:
      ValueError: an unknown masking, or a stream shorter than one training window.
    """
    return dataset(Windows(stream, window_bytes(config), seed, train), config, ("source",))


def dataset(source: Source, config: Any, also: tuple[str, ...] = ()) -> Dataset:
    """Returns examples {"bytes": uint8 [<= window_bytes(config)]} tokenised and masked.

    Args:
      source: of the examples.
      config: the `data` section.
      also: further fields of the source's examples that batches keep, such as "source".
    """
    hide = masking.make(config.masking, config.mask_rate, config.span_length)
    return Dataset(source, (tokenising.make(config), hide, Keep(FIELDS + also)))


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Random access to non-overlapping windows of a stream.

    In training the stream is a ring and each epoch cuts it from another random offset, so that a
    model sees text at every position of its window; bytes that do not fill a window are left out
    of that epoch. In evaluation the windows start at 0 and cover every byte, the last being short.
    """

    stream: np.ndarray  # [T] uint8
    seq_len: int
    seed: int
    train: bool

    def __post_init__(self):
        if self.seq_len < 1:
            raise ValueError(f"data.seq_len must be at least 1, got {self.seq_len}")
        if self.train and len(self.stream) < self.seq_len:
            raise ValueError(
                f"data.seq_len {self.seq_len} is longer than the whole text of "
                f"{len(self.stream)} bytes: use a shorter window or more text"
            )

    def __len__(self) -> int:
        return count(len(self.stream), self.seq_len, train=self.train)

    def example(self, index: int, epoch: int) -> Example:
        """Returns {"bytes": uint8 [<= seq_len], "source": 0, the number within a mixture}."""
        return {"bytes": self._window(index, epoch), "source": np.int32(0)}

    def _window(self, index: int, epoch: int) -> np.ndarray:  # [<= seq_len] uint8
        start = index * self.seq_len
        if not self.train:
            return self.stream[start : start + self.seq_len]
        rng = transforms.generator(self.seed, transforms.OFFSET, epoch)
        start = (start + int(rng.integers(len(self.stream)))) % len(self.stream)
        window = self.stream[start : start + self.seq_len]
        rest = self.seq_len - len(window)  # beyond the end the ring begins again
        return np.concatenate([window, self.stream[:rest]]) if rest else window


def count(size: int, seq_len: int, *, train: bool) -> int:
    """Returns the windows of an epoch over `size` bytes: the full ones, or all that hold a byte."""
    return size // seq_len if train else -(-size // seq_len)
