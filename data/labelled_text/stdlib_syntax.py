"""`stdlib_syntax`: what the middle of a stretch of Python is: a comment, a name, a number, ...

A small, real classification task that every machine has. The text is the standard library's, the
labels are those of Python's own tokenizer. Files are held out as in `stdlib_text`: a model that was
pre-trained on the training files of that has met no validation file of this. All classes are
equally frequent. Only one training file in 16 is labelled: labels are rare where pre-training pays.
Python versions differ a little: from 3.12 on what stands in the braces of an f-string is code.
"""

import dataclasses
import functools
import hashlib
import io
import keyword
import sysconfig
import token
import tokenize
from pathlib import Path
from typing import Any

import numpy as np

from data import transforms
from data.dataset import Dataset, DatasetInfo, Example
from data.labelled_text import labelled_text
from data.text import stdlib_text

KINDS = ("comment", "documentation", "keyword", "name", "number", "operator", "string")

_NONE = len(KINDS)  # white space, and what else has no kind
_LABELLED_IN = {"train": 16, "validation": 4}  # one file in so many
_EACH = {"train": 2_000, "validation": 200}  # examples of a kind
_TYPES = {"COMMENT": "comment", "NAME": "name", "NUMBER": "number", "OP": "operator"}


@dataclasses.dataclass(frozen=True, eq=False)
class SyntaxWindows:
    """Random access to windows whose middle byte is of a known kind.

    In training each is drawn anew in each epoch, in evaluation they lie evenly over the text.
    """

    stream: np.ndarray  # uint8 [T]
    places: tuple[np.ndarray, ...]  # of each kind, the bytes that are
    seq_len: int
    each: int
    seed: int
    train: bool

    def __len__(self) -> int:
        return len(KINDS) * self.each

    def example(self, index: int, epoch: int) -> Example:
        """Returns {"texts": (bytes,), "label": int}."""
        number, label = divmod(index, len(KINDS))
        places = self.places[label]
        middle = int(places[number * len(places) // self.each])
        if self.train:
            rng = transforms.generator(self.seed, transforms.OFFSET, epoch, index)
            middle = int(rng.choice(places))
        start = middle - self.seq_len // 2
        return {"texts": (self.stream[start : start + self.seq_len].tobytes(),), "label": label}


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split.

    Raises:
      ValueError: the windows are longer than the text.
    """
    stream, kinds = labelled(split)
    last = len(stream) - config.seq_len
    inside = np.arange(len(stream)) - config.seq_len // 2
    inside = (inside >= 0) & (inside <= last)
    places = tuple(np.flatnonzero(inside & (kinds == kind)) for kind in range(len(KINDS)))
    if not all(map(len, places)):
        raise ValueError(
            f"data.seq_len {config.seq_len} is too long for the {len(stream)} bytes of "
            f"stdlib_syntax's {split} files: use shorter windows"
        )
    source = SyntaxWindows(stream, places, config.seq_len, _EACH[split], seed, train)
    return labelled_text.dataset(source, config, numbers=False)


def info(config: Any) -> DatasetInfo:
    """Returns the facts; examples are stretches of `config.seq_len` bytes."""
    examples = {split: len(KINDS) * each for split, each in _EACH.items()}
    return DatasetInfo(name="stdlib_syntax", examples=examples, labels=KINDS)


@functools.cache
def labelled(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bytes of the labelled files of a split, and the kind of each byte: uint8 [T].

    Raises:
      FileNotFoundError: this Python has no readable standard library.
    """
    contents, kinds = [], []
    for path, content in stdlib_text.corpus(Path(sysconfig.get_path("stdlib"))).items():
        if stdlib_text.split_of(path) != split or _digest(path) % _LABELLED_IN[split]:
            continue
        labels = kinds_of(content) if path.endswith(".py") else None
        if labels is not None:
            contents.append(np.frombuffer(content, np.uint8))
            kinds.append(labels)
    return np.concatenate(contents), np.concatenate(kinds)


def kinds_of(content: bytes) -> np.ndarray | None:  # uint8 [len(content)]
    """Returns the kind of each byte of a source in UTF-8, `len(KINDS)` where it has none.

    None: Python cannot read it.
    """
    kinds = np.full(len(content), _NONE, np.uint8)
    lines = content.splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, lines)])

    def place(row: int, column: int) -> int:  # the tokenizer counts characters
        line = lines[row - 1] if row <= len(lines) else b""
        if not line.isascii():
            column = len(line.decode()[:column].encode())
        return int(starts[min(row - 1, len(lines))]) + column

    try:
        for piece in tokenize.tokenize(io.BytesIO(content).readline):
            kind = _kind(piece)
            if kind is not None:  # where it ends, Python 3.12.1 miscounts over several lines
                begin = place(*piece.start)
                kinds[begin : begin + len(piece.string.encode())] = kind
    except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
        return None
    return kinds


def _kind(piece: tokenize.TokenInfo) -> int | None:
    name = token.tok_name[piece.type]
    if name == "STRING":
        triple = piece.string.lstrip("rRbBuUfF")[:3] in ('"""', "'''")
        return KINDS.index("documentation" if triple else "string")
    if name.startswith("FSTRING"):
        return KINDS.index("string")
    if name == "NAME" and keyword.iskeyword(piece.string):
        return KINDS.index("keyword")
    return KINDS.index(_TYPES[name]) if name in _TYPES else None


def _digest(path: str) -> int:
    # Of another size than the one that splits: of the same one, all numbers would be of one split.
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=4).digest(), "big")
