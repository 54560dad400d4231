"""What all labelled texts have in common: from texts and a label to what a batch holds.

tokens      i32 [M]   one text, or a pair with [SEP] in between
input_mask  bool [M]  True: a real token
label       i32 []    the class within its task; f32 where any task asks for a number
task        i32 []    the number of the task, where there are several
"""

import dataclasses
from typing import Any

import numpy as np

from data.dataset import BrokenExample, Dataset, Example, Source
from data.transforms import Cast, Keep
from perceiver.text import coders, sequences

SCORE = ("score",)  # the labels of a task whose answer is a number: its one output


def dataset(source: Source, config: Any, *, numbers: bool, several: bool = False) -> Dataset:
    """Returns a split.

    Args:
      source: of {"texts": strings or UTF-8, "label": a number, "task": int if several}.
      config: the `data` section of a config, for its length and tokeniser.
      numbers: whether labels may be other than whole.
      several: whether there is more than one task.
    """
    if config.seq_len < 1:
        raise ValueError(f"data.seq_len must be at least 1, got {config.seq_len}")
    coders.coder(config.tokenizer)  # a file that cannot be read is told here
    steps = [
        JoinTexts(config.seq_len, config.tokenizer),
        Cast("label", np.float32 if numbers else np.int32),
    ]
    steps += [Cast("task", np.int32)] * several
    names = ("tokens", "input_mask", "label") + ("task",) * several
    return Dataset(source, (*steps, Keep(names)))


@dataclasses.dataclass(frozen=True)
class JoinTexts:
    """`texts` -> `tokens` and `input_mask`, cut as `perceiver.text.sequences.join` says."""

    seq_len: int
    tokenizer: str = "bytes"  # see `coders.coder`

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds both fields.

        Raises:
          BrokenExample: a text is empty.
        """
        texts = example["texts"]
        for number, text in enumerate(texts):
            if not text.strip():
                which = f"text {number + 1} of {len(texts)}" if len(texts) > 1 else "the text"
                raise BrokenExample(f"{which} is empty")
        coder = coders.coder(self.tokenizer)
        ids = sequences.join([coder.encode(x) for x in texts], self.seq_len, coder)
        tokens, mask = sequences.pad([ids], self.seq_len, coder)
        return example | {"tokens": tokens[0], "input_mask": mask[0]}
