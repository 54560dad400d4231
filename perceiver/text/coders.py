"""Tokenisers of texts as one kind of value: bytes, a SentencePiece model, another model's own."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from perceiver.text import tokenizer, vocabularies
from perceiver.text.subwords import Subwords
from perceiver.text.vocabularies import Vocabulary

# In `perceiver.kinds.usage`: a tokeniser that is not here; a file that `tokenizers` reads.
EXTERNAL, LIBRARY = "external", "tokenizers"


class Coder(NamedTuple):
    """From texts to ids and back, and what is known of each id."""

    unit: str  # what an id stands for: "bytes" or "subwords"
    encode: Callable[[str | bytes], np.ndarray]  # -> int32 [M]
    decode: Callable[[np.ndarray], str]  # of ids [M]; special tokens are left out
    written: Callable[[int], str]  # an id by itself, to read
    sizes: np.ndarray  # int [vocabulary], bytes of each; 0: a special token
    continues: np.ndarray  # bool [vocabulary], ids that continue a UTF-8 character
    pad: int = tokenizer.PAD
    mask: int = tokenizer.MASK  # -1: it has none
    before: tuple[int, ...] = ()  # special tokens around a text, and between those of a pair
    after: tuple[int, ...] = ()
    between: tuple[int, ...] = (tokenizer.SEP,)

    @property
    def vocabulary(self) -> int:
        """The number of ids."""
        return len(self.continues)


def of_usage(usage: dict[str, Any]) -> Coder:
    """Returns the tokeniser that goes with a model, see `perceiver.kinds.usage`.

    Raises:
      ImportError, FileNotFoundError: as `coder`.
      ValueError: the same, or the model's tokeniser is not here.
    """
    if usage.get("tokenizer") == EXTERNAL:
        raise ValueError(
            "this model came without its tokeniser: put tokenizer.json or vocab.txt beside the "
            'weights, or tokenise elsewhere and pass the ids, model({"tokens": int32 [B, M], '
            '"input_mask": bool [B, M]}) or embed(ids)'
        )
    return coder(usage.get("file", "bytes"))


def usage(name: str) -> dict[str, str]:
    """Returns the part of `perceiver.kinds.usage` that tells of `config.data.tokenizer`."""
    if name == "bytes":
        return {"tokenizer": "bytes"}
    kind = LIBRARY if name.endswith(vocabularies.SUFFIXES) else "sentencepiece"
    return {"tokenizer": kind, "file": name}


@functools.lru_cache(maxsize=2)
def coder(name: str) -> Coder:
    """Returns the tokeniser of `config.data.tokenizer`: "bytes", or a file.

    Args:
      name: of a SentencePiece model, a `tokenizer.json`, or BERT's `vocab.txt`.

    Raises:
      ImportError, FileNotFoundError, ValueError: as `Subwords` and `Vocabulary`.
    """
    if name == "bytes":
        return BYTES
    if name.endswith(vocabularies.SUFFIXES):
        return _of_vocabulary(Vocabulary(name))
    subwords = Subwords(name)
    return Coder(
        unit="subwords",
        encode=subwords.encode,
        decode=subwords.decode,
        written=functools.partial(_subword, subwords),
        sizes=subwords.sizes,
        continues=subwords.continues,
    )


def _of_vocabulary(given: Vocabulary) -> Coder:
    return Coder(
        unit="subwords",
        encode=given.encode,
        decode=given.decode,
        written=given.written,
        sizes=given.sizes,
        continues=np.zeros(given.vocabulary, bool),
        pad=given.pad,
        mask=given.mask,
        before=tuple(given.before.tolist()),
        after=tuple(given.after.tolist()),
        between=tuple(given.between.tolist()),
    )


def _byte(index: int) -> str:
    """Returns a byte as a character, or in hexadecimal if it is none by itself."""
    value = int(index) - tokenizer.OFFSET
    return chr(value) if value < 128 else f"\\x{value:02x}"


def _subword(subwords: Subwords, index: int) -> str:
    """Returns a piece as text, or in hexadecimal if it is a byte that is no text by itself."""
    text = subwords.decode(np.array([index]))
    return subwords.piece(index) if "\ufffd" in text else text


def _bytes() -> Coder:
    sizes = np.ones(tokenizer.VOCABULARY, np.int32)
    sizes[: tokenizer.OFFSET] = 0
    continues = np.zeros(tokenizer.VOCABULARY, bool)
    continues[tokenizer.OFFSET + 0x80 : tokenizer.OFFSET + 0xC0] = True
    return Coder("bytes", tokenizer.encode, tokenizer.decode, _byte, sizes, continues)


BYTES = _bytes()
