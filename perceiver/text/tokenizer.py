"""UTF-8 bytes <-> token ids, the vocabulary of the byte-level models.

Ids 0..5 are the special tokens; byte b is id b + 6. The vocabulary therefore has 262 entries
(Perceiver IO, section 4.1, speaks of "256 bytes and 4 special tokens"; the released weights have
six).
"""

import numpy as np

PAD, BOS, EOS, MASK, CLS, SEP = range(6)
OFFSET = 6
VOCABULARY = 256 + OFFSET


def encode(text: str | bytes) -> np.ndarray:  # [M] int32
    """Returns the ids of a text's UTF-8 bytes, without any special token."""
    data = text.encode("utf-8") if isinstance(text, str) else text
    return np.frombuffer(data, np.uint8).astype(np.int32) + OFFSET


def decode(ids: np.ndarray) -> str:  # [M]
    """Returns the text of ids; special tokens are left out, broken UTF-8 becomes U+FFFD.

    Raises:
      ValueError: an id lies outside 0..261.
    """
    ids = np.asarray(ids)
    check_ids(ids)
    return (
        (ids[ids >= OFFSET] - OFFSET).astype(np.uint8).tobytes().decode("utf-8", errors="replace")
    )


def check_ids(ids: np.ndarray, vocabulary: int = VOCABULARY) -> None:
    """Raises ValueError, naming the first bad id, unless all ids lie in 0..vocabulary - 1."""
    bad = np.argwhere((ids < 0) | (ids >= vocabulary))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"token {int(ids[place])} at {place} is outside 0..{vocabulary - 1}; for bytes, "
            f"an id is byte + {OFFSET} or one of the specials 0..{OFFSET - 1} (see encode)"
        )
