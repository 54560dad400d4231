"""What released models are known to have answered, to hold a copy of their weights against.

Only of the masked language model has anyone quoted numbers: Hugging Face's conversion script checks
nine logits for one sentence, to four digits, before it saves DeepMind's weights. Its class has the
exact GELU (erf), DeepMind's model and ours the tanh approximation; whose answers the script quotes
it does not say. At this model's size the two differ by some 3e-4 of the logits' standard deviation,
so by about 1e-3. Weights are held against the digits with both forms.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from perceiver.text import tokenizer

SENTENCE = "This is an incomplete sentence where some words are missing."
MASKED = slice(51, 60)  # " missing."


@dataclasses.dataclass(frozen=True)
class ReferenceOutputs:
    """One input of a released model and parts of its output."""

    model: str  # a name in released.MODELS
    inputs: Callable[[], dict[str, np.ndarray]]  # a batch of one
    logits: tuple[tuple[float, ...], ...]  # the first classes of the first positions
    greedy: tuple[int, ...]  # the most likely classes of `positions`
    positions: slice
    tolerance: float  # the digits quoted, and what other hardware rounds; other weights miss by 1


def masked_sentence(length: int = 2048) -> dict[str, np.ndarray]:
    """The sentence without its last word, padded to the model's length, as a batch of one."""
    ids = tokenizer.encode(SENTENCE)
    tokens = np.full((1, length), tokenizer.PAD, np.int32)
    tokens[0, : len(ids)] = ids
    tokens[0, MASKED] = tokenizer.MASK
    return {"tokens": tokens, "input_mask": np.arange(length)[None] < len(ids)}


RECORDS = (
    ReferenceOutputs(
        model="masked-lm-bytes",
        inputs=masked_sentence,
        logits=(
            (-11.8336, -11.6850, -11.8483),
            (-12.8149, -12.5863, -12.7904),
            (-12.8440, -12.6410, -12.8646),
        ),
        greedy=(38, 115, 111, 121, 121, 111, 116, 109, 52),  # " missing."
        positions=MASKED,
        tolerance=5e-4,
    ),
)
