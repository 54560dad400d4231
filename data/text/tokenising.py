"""From a window's bytes to tokens, with the words and characters that they belong to.

Both tokenisers add the same fields, all [M]:

  tokens i32       ids, filled up with [PAD]
  input_mask bool  True at real tokens
  word i32         the number of the token's word, 1, 2, ...; 0: white space, padding, cut
  character i32    the number of its character (of a subword: its own); 0: padding, cut

"Cut" are the bytes of a UTF-8 character whose other bytes lie beyond an edge of the window. The
model sees them, but they are in no word and no character, so that no masking hides and no loss
counts them. A word that an edge has cut is the word that is left.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from data.dataset import Example, Transform
from perceiver.text import tokenizer
from perceiver.text.subwords import Subwords

BYTES = "bytes"  # the value of config.data.tokenizer that needs no file

# Of each id. White space is ASCII's: the bytes of other blanks may be parts of letters.
_SEPARATES = np.zeros(tokenizer.VOCABULARY, bool)
_SEPARATES[: tokenizer.OFFSET] = True  # a special token is no part of a word
_SEPARATES[tokenizer.encode(b" \t\n\r\v\f")] = True


def make(config: Any) -> Transform:
    """Returns the tokeniser of a `data` section."""
    if config.tokenizer == BYTES:
        return Tokenise(config.seq_len)
    return TokenisePieces(config.tokenizer, config.seq_len)


def window_bytes(config: Any) -> int:
    """Returns how many bytes of text a window takes."""
    if config.tokenizer == BYTES:
        return config.seq_len
    if config.piece_bytes < 1:
        raise ValueError(f"data.piece_bytes must be at least 1, got {config.piece_bytes}")
    return int(config.seq_len * config.piece_bytes)


def hidden_bytes(masking: str) -> np.ndarray:  # [256] bool
    """Returns which bytes a masking can hide: "word" never hides white space."""
    return ~_SEPARATES[tokenizer.OFFSET :] if masking == "word" else np.full(256, True)


def cut(content: np.ndarray) -> tuple[int, int]:  # uint8 [n]
    """Returns how many bytes of cut characters stand at the start and at the end.

    At the start these are continuation bytes (of a UTF-8 character there are three at most), at
    the end a leading byte with fewer bytes after it than it announces. What is no UTF-8 elsewhere
    is nobody's edge and stays.
    """
    first = content[:3] & 0xC0 == 0x80  # continuation bytes
    start = int(np.argmin(first)) if not first.all() else len(first)
    for back in range(1, min(4, len(content) - start + 1)):
        byte = content[-back]
        if byte & 0xC0 != 0x80:
            needs = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
            return start, back if needs > back else 0
    return start, 0


@dataclasses.dataclass(frozen=True)
class Tokenise:
    """A token for each byte."""

    seq_len: int

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds `tokens`, `input_mask`, `word` and `character`."""
        content = example["bytes"]
        ids = tokenizer.encode(content.tobytes())
        start, end = cut(content)
        whole = np.arange(len(ids)) < len(ids) - end
        whole[:start] = False
        fields = {
            "word": _numbers(~_SEPARATES[ids], whole=whole),
            "character": _numbers(whole, starts=content & 0xC0 != 0x80),
        }
        return example | _padded(ids, fields, self.seq_len)


@dataclasses.dataclass(frozen=True)
class TokenisePieces:
    """A token for each piece of a SentencePiece model; pieces beyond the window are left out."""

    path: str  # of the model file
    seq_len: int

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds `tokens`, `input_mask`, `word` and `character`."""
        subwords = load_subwords(self.path)
        start, end = cut(example["bytes"])
        content = example["bytes"][start : len(example["bytes"]) - end]
        ids = subwords.encode(content.tobytes())
        rest, ids = ids[self.seq_len :], ids[: self.seq_len]
        starts = ~subwords.continues[ids]  # a character that is no piece is one of bytes
        whole = np.ones(len(ids), bool)
        if len(rest) and subwords.continues[rest[0]]:  # one of these at the very end
            whole[np.flatnonzero(starts)[-1] :] = False
        in_word = ~subwords.separates[ids]
        fields = {
            "word": _numbers(in_word, starts=subwords.begins[ids], whole=whole),
            "character": _numbers(whole, starts=starts),
        }
        return example | _padded(ids, fields, self.seq_len)


@functools.lru_cache(maxsize=2)
def load_subwords(path: str) -> Subwords:
    """Returns the tokeniser of a file, read once in each process."""
    return Subwords(path)


def _numbers(
    inside: np.ndarray, *, starts: np.ndarray | None = None, whole: np.ndarray | None = None
) -> np.ndarray:  # bool [n] each -> i32 [n]
    """Numbers the runs of `inside`, which also end where another `starts`; 0 outside of `whole`."""
    first = inside.copy()
    first[1:] &= ~inside[:-1]
    if starts is not None:
        first |= inside & starts
    numbers = np.where(inside if whole is None else inside & whole, np.cumsum(first), 0)
    return numbers.astype(np.int32)


def _padded(ids: np.ndarray, fields: dict[str, np.ndarray], seq_len: int) -> Example:
    tokens = np.full(seq_len, tokenizer.PAD, np.int32)
    tokens[: len(ids)] = ids
    padded = {"tokens": tokens, "input_mask": np.arange(seq_len) < len(ids)}
    for name, values in fields.items():
        padded[name] = np.zeros(seq_len, np.int32)
        padded[name][: len(values)] = values
    return padded
