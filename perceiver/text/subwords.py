"""Subwords <-> token ids: the vocabulary of a SentencePiece model, behind our special ids.

Ids 0..5 are the special tokens of `perceiver.text.tokenizer`; piece p of the model is id p + 6,
whatever special pieces the model has of its own. Any SentencePiece file will do. `python -m
data.prepare sentencepiece` trains one that loses nothing: with byte fallback, and without
normalisation, every text comes back as it was.
"""

import os
from pathlib import Path

import numpy as np

from perceiver.text.tokenizer import OFFSET, check_ids

_SPACE = "\u2581"  # how SentencePiece writes a blank
_BLANKS = " \t\n\r\v\f"


class Subwords:
    """The tokeniser of a SentencePiece model file.

    Attributes:
      vocabulary: K, ids are 0..K - 1: the model's pieces and the six special tokens.
      begins: bool [K], pieces that begin with a blank, and so a word.
      separates: bool [K], pieces of white space alone, and the special tokens: in no word.
      continues: bool [K], pieces of one byte that continue a UTF-8 character.
      sizes: i32 [K], bytes of a piece; 0: a special token.

    Raises:
      ImportError: the library sentencepiece is not installed.
      FileNotFoundError: there is no such file.
      ValueError: it is no SentencePiece model.
    """

    def __init__(self, path: str | os.PathLike):
        try:
            import sentencepiece
        except ImportError as error:
            raise ImportError(
                "subwords need the extra `subwords`: pip install sentencepiece; or set "
                'data.tokenizer="bytes"'
            ) from error
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"no such SentencePiece model: {str(path)!r}; train one with "
                "python -m data.prepare sentencepiece --input=STORE --out=FILE"
            )
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{path} is not a SentencePiece model: {error}") from error
        self._tables()

    def encode(self, text: str | bytes) -> np.ndarray:  # [M] int32
        """Returns the ids of a text, without any special token; broken UTF-8 becomes U+FFFD."""
        if not isinstance(text, str):
            text = text.decode("utf-8", errors="replace")
        return np.asarray(self._model.encode(text), np.int32) + OFFSET

    def decode(self, ids: np.ndarray) -> str:  # [M]
        """Returns the text of ids; special tokens are left out.

        Raises:
          ValueError: an id lies outside of the vocabulary.
        """
        ids = np.asarray(ids)
        check_ids(ids, self.vocabulary)
        return self._model.decode((ids[ids >= OFFSET] - OFFSET).tolist())

    def piece(self, index: int) -> str:
        """Returns how a piece is written, blanks as they are; "" of a special token."""
        if index < OFFSET:
            return ""
        return self._model.id_to_piece(int(index) - OFFSET).replace(_SPACE, " ")

    def _tables(self) -> None:
        size = self._model.get_piece_size()
        self.vocabulary = size + OFFSET
        self.begins = np.zeros(self.vocabulary, bool)
        self.separates = np.ones(self.vocabulary, bool)
        self.continues = np.zeros(self.vocabulary, bool)
        self.sizes = np.zeros(self.vocabulary, np.int32)
        for index in range(OFFSET, self.vocabulary):
            piece = self.piece(index)
            if self._model.is_byte(index - OFFSET):  # written <0x0A>
                byte = int(piece[3:-1], 16)
                self.sizes[index] = 1
                self.separates[index] = byte < 128 and chr(byte) in _BLANKS
                self.continues[index] = byte & 0xC0 == 0x80
            elif not self._model.is_control(index - OFFSET):
                self.sizes[index] = len(piece.encode())
                self.begins[index] = piece.startswith(" ")
                self.separates[index] = not piece.strip(_BLANKS)
