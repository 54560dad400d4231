"""Texts and pairs of texts as rows of token ids, the same in training and use."""

from collections.abc import Sequence

import numpy as np

from perceiver.text import coders

SEPARATOR = "[SEP]"  # as people write it, between the two texts of a pair


def join(
    parts: Sequence[np.ndarray], length: int, coder: coders.Coder = coders.BYTES
) -> np.ndarray:  # [<= length] int32
    """Returns ids of one text, or of several with [SEP] in between, and what the coder puts around.

    What is too long loses its end, and of several the longest does, down to the length of the
    others; a UTF-8 character is never cut, but left out.

    Args:
      parts: ids [M] of each text.
      length: the most ids that there may be.
      coder: the tokeniser.

    Raises:
      ValueError: not even the separators have room.
    """
    before, after = (np.array(ids, np.int32) for ids in (coder.before, coder.after))
    between = np.array(coder.between, np.int32)
    room = length - len(before) - len(after) - (len(parts) - 1) * len(between)
    if room < len(parts):
        raise ValueError(f"{len(parts)} texts do not fit into {length} tokens; increase the limit")
    kept = _share(np.array([len(part) for part in parts]), room)
    pieces = [before]
    for part, size in zip(parts, kept, strict=True):
        pieces += [part[: _whole(part, int(size), coder.continues)], between]
    return np.concatenate([*pieces[:-1], after]).astype(np.int32)


def pad(
    rows: Sequence[np.ndarray], length: int, coder: coders.Coder = coders.BYTES
) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens int32 [B, length], filled up with [PAD], and the mask of the real ones."""
    tokens = np.full((len(rows), length), coder.pad, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    sizes = np.array([len(ids) for ids in rows], int).reshape(-1, 1)
    return tokens, np.arange(length)[None] < sizes


def _share(sizes: np.ndarray, room: int) -> np.ndarray:  # int [parts]
    """Returns how much of each text fits: short ones whole, and the others alike."""
    kept, left = np.zeros_like(sizes), room
    for place, index in enumerate(np.argsort(sizes, kind="stable")):
        kept[index] = min(sizes[index], left // (len(sizes) - place))
        left -= kept[index]
    return kept


def _whole(ids: np.ndarray, size: int, continues: np.ndarray) -> int:
    """Returns the largest cut, at most `size`, between two characters."""
    start = size
    while start > 0 and size < len(ids) and continues[ids[start]] and size - start < 4:
        start -= 1
    return start
