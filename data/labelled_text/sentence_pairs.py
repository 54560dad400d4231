"""What all pairs and triplets of texts have in common: from texts to what a batch holds.

tokens      i32 [M]   the first text; input_mask bool [M], True: a real token
tokens_b    i32 [M]   the second one; mask_b bool [M]
tokens_c    i32 [M]   the third one of a triplet; mask_c bool [M]
label       i32 []    the class, if there are any; f32 from 0 to 1: how alike the two are
"""

import dataclasses
from typing import Any

import numpy as np

from data.dataset import BrokenExample, Dataset, DatasetInfo, Example, Source
from data.labelled_text import labelled_text
from data.transforms import Cast, Keep
from perceiver.text import coders, sequences

# Names of the tokens and the mask of each text.
NAMES = (("tokens", "input_mask"), ("tokens_b", "mask_b"), ("tokens_c", "mask_c"))
_UNIT = (0.0, 1.0)


def dataset(
    source: Source, config: Any, facts: DatasetInfo, *, score_range: tuple[float, ...] = _UNIT
) -> Dataset:
    """Returns a split.

    Args:
      source: of {"texts": two or three strings or UTF-8, "label": a number, if there are labels}.
      config: the `data` section of a config, for its length, tokeniser and `score_range`.
      facts: how many texts there are, and which labels.
      score_range: the lowest and highest score of this source, unless the config says it.

    Raises:
      ValueError: a length below 1, or a range that is none.
      FileNotFoundError, ImportError: of the tokeniser.
    """
    if config.seq_len < 1:
        raise ValueError(f"data.seq_len must be at least 1, got {config.seq_len}")
    coders.coder(config.tokenizer)  # a file that cannot be read is told here
    steps: list[Any] = [SeparateTexts(config.seq_len, config.tokenizer)]
    names = [name for pair in NAMES[: facts.texts] for name in pair]
    if facts.labels == labelled_text.SCORE:
        lowest, highest = _range(config.score_range or score_range)
        steps += [ScaleScore(lowest, highest), Cast("label", np.float32)]
    elif facts.labels:
        steps += [CheckClass(len(facts.labels)), Cast("label", np.int32)]
    names += ["label"] * bool(facts.labels)
    return Dataset(source, (*steps, Keep(tuple(names))))


def _range(given: Any) -> tuple[float, float]:
    if len(given) != 2 or not given[0] < given[1]:
        raise ValueError(
            f"data.score_range={tuple(given)} must be the lowest and the highest score, such as "
            "(1.0, 5.0)"
        )
    return tuple(given)


@dataclasses.dataclass(frozen=True)
class SeparateTexts:
    """`texts` -> tokens and mask of each; what is too long loses its end, between characters."""

    seq_len: int
    tokenizer: str = "bytes"  # see `coders.coder`

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds the fields of `NAMES`.

        Raises:
          BrokenExample: a text is empty.
        """
        coder, encoded = coders.coder(self.tokenizer), {}
        for number, (text, names) in enumerate(zip(example["texts"], NAMES, strict=False), 1):
            if not text.strip():
                raise BrokenExample(f"text {number} of {len(example['texts'])} is empty")
            ids = sequences.join([coder.encode(text)], self.seq_len, coder)
            tokens, mask = sequences.pad([ids], self.seq_len, coder)
            encoded |= dict(zip(names, (tokens[0], mask[0]), strict=True))
        return example | encoded


@dataclasses.dataclass(frozen=True)
class ScaleScore:
    """Scores between two numbers -> between 0 and 1."""

    lowest: float
    highest: float

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Replaces the label.

        Raises:
          BrokenExample: a score lies outside.
        """
        score = float(example["label"])
        if not self.lowest <= score <= self.highest:
            raise BrokenExample(
                f"its score {score:g} is outside data.score_range "
                f"{self.lowest:g} to {self.highest:g}"
            )
        return example | {"label": (score - self.lowest) / (self.highest - self.lowest)}


@dataclasses.dataclass(frozen=True)
class CheckClass:
    """Leaves out examples of no class, which SNLI writes as -1."""

    classes: int

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Returns the example as it is.

        Raises:
          BrokenExample: there is no such class.
        """
        if not 0 <= example["label"] < self.classes:
            raise BrokenExample(f"its label {example['label']} is not in 0..{self.classes - 1}")
        return example
