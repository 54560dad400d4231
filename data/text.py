"""Windows of a byte stream, and the masking of masked language models.

A corpus is one stream of bytes: its documents laid end to end. Windows are cut where the sequence
length says, without regard to words or documents, as in byte-level pre-training generally.
"""

import dataclasses
from typing import Any

import numpy as np

from data import transforms
from data.dataset import Dataset, Example, Transform
from data.transforms import Keep
from perceiver import tokenizer

MASKINGS = ("word", "byte")  # choices of config.data.masking

# True at the ids of ASCII white space, which separates words; special tokens are no part of a word.
_SEPARATES = np.zeros(tokenizer.VOCABULARY, bool)
_SEPARATES[: tokenizer.OFFSET] = True
_SEPARATES[tokenizer.encode(b" \t\n\r\v\f")] = True


def masked_lm(stream: np.ndarray, config: Any, *, seed: int, train: bool) -> Dataset:
    """Returns masked windows of a stream [T] uint8, as configured.

    Raises:
      ValueError: an unknown masking, or a stream shorter than one training window.
    """
    windows = Windows(stream, config.seq_len, seed, train)
    names = ("tokens", "targets", "input_mask", "target_mask")
    masking = _masking(config.masking, config.mask_rate)
    return Dataset(windows, (Tokenise(config.seq_len), masking, Keep(names)))


def hidden_bytes(masking: str) -> np.ndarray:  # [256] bool
    """Returns which bytes a masking can hide: "word" never hides white space."""
    return ~_SEPARATES[tokenizer.OFFSET :] if masking == "word" else np.full(256, True)


def _masking(name: str, rate: float) -> Transform:
    if name not in MASKINGS:
        raise ValueError(f"data.masking {name!r} is unknown: choose one of {MASKINGS}")
    return WholeWordMask(rate) if name == "word" else RandomByteMask(rate)


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
        """Returns {"bytes": uint8 [<= seq_len]}."""
        start = index * self.seq_len
        if not self.train:
            return {"bytes": self.stream[start : start + self.seq_len]}
        rng = transforms.generator(self.seed, transforms.OFFSET, epoch)
        start = (start + int(rng.integers(len(self.stream)))) % len(self.stream)
        window = self.stream[start : start + self.seq_len]
        rest = self.seq_len - len(window)  # beyond the end the ring begins again
        return {"bytes": np.concatenate([window, self.stream[:rest]]) if rest else window}


def count(size: int, seq_len: int, *, train: bool) -> int:
    """Returns the windows of an epoch over `size` bytes: the full ones, or all that hold a byte."""
    return size // seq_len if train else -(-size // seq_len)


@dataclasses.dataclass(frozen=True)
class Tokenise:
    """Bytes -> `tokens` i32 [M], filled up with [PAD], and `input_mask` [M], True at real bytes."""

    seq_len: int

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds both fields."""
        ids = tokenizer.encode(example["bytes"].tobytes())
        tokens = np.full(self.seq_len, tokenizer.PAD, np.int32)
        tokens[: len(ids)] = ids
        return example | {"tokens": tokens, "input_mask": np.arange(self.seq_len) < len(ids)}


@dataclasses.dataclass(frozen=True)
class WholeWordMask:
    """Hides whole words: each, independently, with probability `rate` (Perceiver IO, section 4.1).

    A word is a run of bytes between white space (or an end of the window). All bytes of a chosen
    word become [MASK], are True in `target_mask`, and stay readable in `targets`; white space and
    padding are never chosen. A window in which no word is chosen keeps `target_mask` all False: it
    weighs nothing in a loss that is a (sum, weight) pair, and no word is forced, so that the rate
    stays exact.
    """

    rate: float = 0.15

    def __post_init__(self):
        _check_rate(self.rate)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds `targets` and `target_mask`, and hides words in `tokens`."""
        in_word = ~_SEPARATES[example["tokens"]]  # [M]
        starts = in_word.copy()
        starts[1:] &= ~in_word[:-1]
        word = np.cumsum(starts)  # [M], 1.. inside words
        chosen = rng.random(word[-1] + 1) < self.rate
        return _hide(example, in_word & chosen[word])


@dataclasses.dataclass(frozen=True)
class RandomByteMask:
    """Hides single bytes, white space too: each, independently, with probability `rate`."""

    rate: float = 0.15

    def __post_init__(self):
        _check_rate(self.rate)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds `targets` and `target_mask`, and hides bytes in `tokens`."""
        chosen = rng.random(len(example["tokens"])) < self.rate
        return _hide(example, example["input_mask"] & chosen)


def _hide(example: Example, target_mask: np.ndarray) -> Example:  # [M] bool
    tokens = np.where(target_mask, np.int32(tokenizer.MASK), example["tokens"])
    return example | {"tokens": tokens, "targets": example["tokens"], "target_mask": target_mask}


def _check_rate(rate: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"data.mask_rate must be in (0, 1], got {rate}")
