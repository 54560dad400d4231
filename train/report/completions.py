"""What a masked language model puts in place of what was hidden, as text to read.

Each window is written with every hidden stretch as {truth|guess}; a stretch that is guessed right
is {truth}. The guess is the most probable token at each place by itself, as it was trained.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from perceiver.text import tokenizer

SHOWN = 4  # windows
_WIDTH = 300  # characters of `line`

Batch = dict[str, np.ndarray]


def best(logits: np.ndarray) -> np.ndarray:  # [B, M, K] -> i32 [B, M]
    """Returns the most probable token at each place; the special ones are none."""
    return logits[..., tokenizer.OFFSET :].argmax(axis=-1).astype(np.int32) + tokenizer.OFFSET


def render(batch: Batch, guesses: np.ndarray, decode: Callable[[np.ndarray], str]) -> str:
    """Returns the text of the windows of a batch.

    Args:
      batch: `targets`, `input_mask`, `target_mask`, [B, M] each, and `mask` [B].
      guesses: ids [B, M].
      decode: ids -> text.
    """
    parts = []
    for row in np.flatnonzero(batch["mask"]):
        real = batch["input_mask"][row]
        hidden = batch["target_mask"][row][real]
        truth, guess = batch["targets"][row][real], guesses[row][real]
        right = int((truth == guess)[hidden].sum())
        title = f"window {row}: {right} of {int(hidden.sum())} hidden tokens are right"
        parts.append(f"=== {title}\n{_window(truth, guess, hidden, decode)}\n")
    return "\n".join(parts)


def line(batch: Batch, guesses: np.ndarray, decode: Callable[[np.ndarray], str]) -> str:
    """Returns the beginning of the first window of a batch with something hidden, on one line."""
    rows = np.flatnonzero((batch["target_mask"] & batch["input_mask"]).any(axis=1) & batch["mask"])
    if not len(rows):
        return ""
    first = {name: x[rows[:1]] for name, x in batch.items()}
    _, _, text = render(first, guesses[rows[:1]], decode).partition("\n")
    text = "\u23ce".join(text.strip("\n").split("\n"))  # a sign of return
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]} ..."


def write(path: Path, text: str) -> Path:
    """Writes the text; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _window(truth: np.ndarray, guess: np.ndarray, hidden: np.ndarray, decode) -> str:  # [n] each
    edges = np.flatnonzero(hidden[1:] != hidden[:-1]) + 1
    pieces = []
    for stretch in np.split(np.arange(len(truth)), edges):
        if not len(stretch):
            continue
        text = decode(truth[stretch])
        if hidden[stretch[0]]:
            same = (truth[stretch] == guess[stretch]).all()
            text = f"{{{text}}}" if same else f"{{{text}|{decode(guess[stretch])}}}"
        pieces.append(text)
    return "".join(pieces)
