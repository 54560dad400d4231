"""Tokenisers of other models, read by the library `tokenizers`: BERT's WordPiece and any other.

A file is a `tokenizer.json`, which says everything, or BERT's `vocab.txt`. Ids, special tokens
among them, are the file's own; what stands before and after a text is what the file says.
"""

import json
import os
from pathlib import Path

import numpy as np

SUFFIXES = (".json", ".txt")
_PAD, _MASK = ("[PAD]", "<pad>"), ("[MASK]", "<mask>")
_CASE = "tokenizer_config.json"  # beside a vocab.txt: whether it is for texts in lower case


class Vocabulary:
    """The tokeniser of a file.

    Attributes:
      vocabulary: K, ids are 0..K - 1.
      before, after: int32, the special tokens around a text.
      between: int32, those between the texts of a pair.
      pad, mask: ids; `mask` is -1 of a tokeniser that has none.
      sizes: i32 [K], bytes of a token as it is written; 0: a special token.

    Raises:
      ImportError: the library tokenizers is not installed.
      FileNotFoundError: there is no such file.
      ValueError: it is no tokeniser.
    """

    def __init__(self, path: str | os.PathLike):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no such tokeniser: {str(path)!r}")
        self._library = _read(path)
        self._library.no_padding()
        self._library.no_truncation()
        self.vocabulary = self._library.get_vocab_size(with_added_tokens=True)
        special = {
            number
            for number, token in self._library.get_added_tokens_decoder().items()
            if token.special
        }
        self.pad = next(self._ids(_PAD), 0)
        self.mask = next(self._ids(_MASK), -1)
        one, two = (
            self._library.encode(*texts, add_special_tokens=True) for texts in (("a",), ("a", "a"))
        )
        self.before, self.after = _around(one.ids, one.special_tokens_mask)
        kept = np.flatnonzero(np.equal(two.special_tokens_mask, 0))
        self.between = np.asarray(two.ids[kept[0] + 1 : kept[-1]], np.int32)
        written = [self.written(number) for number in range(self.vocabulary)]
        self.sizes = np.array([len(text.encode()) for text in written], np.int32)
        self.sizes[sorted(special)] = 0

    def encode(self, text: str | bytes) -> np.ndarray:  # [M] int32
        """Returns the ids of a text, without any special token; broken UTF-8 becomes U+FFFD."""
        if not isinstance(text, str):
            text = text.decode("utf-8", errors="replace")
        return np.asarray(self._library.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(self, ids: np.ndarray) -> str:  # [M]
        """Returns the text of ids; special tokens are left out."""
        return self._library.decode(np.asarray(ids).tolist(), skip_special_tokens=True)

    def written(self, index: int) -> str:
        """Returns how a token is written, without the marks of a piece within a word."""
        return (self._library.id_to_token(int(index)) or "").removeprefix("##")

    def save(self) -> bytes:
        """Returns the content of a tokenizer.json that is the same tokeniser."""
        return self._library.to_str().encode()

    def _ids(self, names: tuple[str, ...]):
        found = (self._library.token_to_id(name) for name in names)
        return (number for number in found if number is not None)


def _read(path: Path):
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            f"{path} needs the extra `subwords`: pip install tokenizers; or pass ids"
        ) from error
    try:
        if path.suffix == ".json":
            return tokenizers.Tokenizer.from_file(str(path))
        settings = path.parent / _CASE
        lower = True
        if settings.is_file():
            lower = json.loads(settings.read_text(encoding="utf-8")).get("do_lower_case", True)
        bert = tokenizers.BertWordPieceTokenizer(str(path), lowercase=bool(lower))
        return tokenizers.Tokenizer.from_str(bert.to_str())
    except Exception as error:  # the library's own are of no class of their own
        raise ValueError(f"{path} is not a tokeniser: {error}") from error


def _around(ids: list[int], special: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the special tokens before and after a text."""
    kept = np.flatnonzero(np.equal(special, 0))
    return np.asarray(ids[: kept[0]], np.int32), np.asarray(ids[kept[-1] + 1 :], np.int32)
