"""What a masked language model has to guess: whole words, single bytes, or spans.

A tokenised example (`data.text.tokenising`) numbers the word and the character that each token
belongs to; 0 is none, and such a token is never hidden: padding, white space as far as words go,
and the rest of a character that an edge of the window has cut, of which nobody could tell what it
was. Each masking hides every eligible unit with probability `rate`, exactly, at every place of
every window; windows in which nothing is hidden stay, with target_mask all False, and weigh
nothing.

  word   whole words between white space, independently (Perceiver IO, section 4.1). The unit is as
         the script has it. Arabic, Korean or emoji between blanks are words like any other. Where
         a script sets no blanks (Chinese, Japanese, Thai), a "word" is all between two line
         breaks or blanks, often the whole window: the rate is right on average, but a window is
         hidden whole or not at all. Choose span for such text.
  byte   single tokens, independently, white space too.
  span   runs of whole characters, white space too, of geometric lengths: see `SpanMask`.
"""

import dataclasses

import numpy as np

from data.dataset import Example, Transform
from perceiver.text import tokenizer

MASKINGS = ("word", "byte", "span")  # choices of config.data.masking


def make(name: str, rate: float, span_length: float) -> Transform:
    """Returns a masking by name.

    Raises:
      ValueError: an unknown name, or a rate or length that it cannot have.
    """
    if name not in MASKINGS:
        raise ValueError(f"data.masking {name!r} is unknown: choose one of {MASKINGS}")
    if name == "span":
        return SpanMask(rate, span_length)
    return WholeWordMask(rate) if name == "word" else RandomByteMask(rate)


@dataclasses.dataclass(frozen=True)
class WholeWordMask:
    """Hides whole words: each, independently, with probability `rate` (Perceiver IO, section 4.1).

    All tokens of a chosen word become [MASK], are True in `target_mask`, and stay readable in
    `targets`. No word is forced where none is chosen, so that the rate stays exact. Longer words
    hide more tokens at once: the share of hidden tokens scatters more than that of hidden words.
    """

    rate: float = 0.15

    def __post_init__(self):
        _check_rate(self.rate)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds `targets` and `target_mask`, and hides words in `tokens`."""
        word = example["word"]  # [M]
        chosen = rng.random(word.max(initial=0) + 1) < self.rate
        return _hide(example, (word > 0) & chosen[word])


@dataclasses.dataclass(frozen=True)
class RandomByteMask:
    """Hides single tokens, white space too: each, independently, with probability `rate`."""

    rate: float = 0.15

    def __post_init__(self):
        _check_rate(self.rate)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds `targets` and `target_mask`, and hides bytes in `tokens`."""
        chosen = rng.random(len(example["tokens"])) < self.rate
        return _hide(example, (example["character"] > 0) & chosen)


@dataclasses.dataclass(frozen=True)
class SpanMask:
    """Hides runs of whole characters (pieces, of subwords), whatever they are.

    A Markov chain with the states hidden and visible walks over the characters, from its
    stationary distribution. A hidden stretch has a geometric length of mean `length`, a visible
    one of mean length (1 - rate) / rate, each at least one character, all independent. Thus every
    character is hidden with probability `rate` wherever it stands; stretches never touch; the
    window's edges cut both kinds alike. Any script is treated the same.
    """

    rate: float = 0.15
    length: float = 20.0  # mean, in characters

    def __post_init__(self):
        _check_rate(self.rate)
        if not self.length >= 1:
            raise ValueError(f"data.span_length must be at least 1 character, got {self.length}")
        if self.rate < 1 and self._visible < 1:
            raise ValueError(
                f"data.mask_rate {self.rate} with data.span_length {self.length} leaves "
                f"{self._visible:.3g} characters between spans on average: it must be at least 1. "
                "Lower the rate or choose longer spans"
            )

    @property
    def _visible(self) -> float:
        """Mean length of what is visible between two spans."""
        return self.length * (1 - self.rate) / self.rate

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds `targets` and `target_mask`, and hides spans in `tokens`."""
        character = example["character"]  # [M]
        count = int(character.max(initial=0))
        hidden = np.concatenate([[False], self.draw(count, rng)])  # number 0 is no character
        return _hide(example, hidden[character])

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:  # bool [count]
        """Returns which of `count` characters are hidden."""
        if self.rate == 1:
            return np.ones(count, bool)
        first = rng.random() < self.rate
        means = (self.length, self._visible) if first else (self._visible, self.length)
        pieces, total = [np.zeros(0, np.int64)], 0
        while total < count:  # a geometric distribution forgets: the first stretch is like others
            # About so many pairs of stretches as are still missing, one at least.
            pairs = 1 + int((count - total) / sum(means))
            lengths = rng.geometric(1 / np.array(means), size=(pairs, 2)).ravel()
            pieces.append(lengths)
            total += int(lengths.sum())
        lengths = np.concatenate(pieces)
        states = (np.arange(len(lengths)) % 2 == 0) == first
        return np.repeat(states, lengths)[:count]


def _hide(example: Example, target_mask: np.ndarray) -> Example:  # [M] bool
    tokens = np.where(target_mask, np.int32(tokenizer.MASK), example["tokens"])
    return example | {"tokens": tokens, "targets": example["tokens"], "target_mask": target_mask}


def _check_rate(rate: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"data.mask_rate must be in (0, 1], got {rate}")
