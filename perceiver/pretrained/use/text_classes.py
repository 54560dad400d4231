"""Text classifiers: texts, or pairs of texts, in; labels out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perceiver.kinds import specs
from perceiver.pretrained.runner import Runner
from perceiver.pretrained.use import image, items
from perceiver.text import coders, lengths, sequences, tokenizer

Text = str | bytes
Pair = tuple[Text, Text]


def several(given: Any) -> bool:
    """Returns whether a user gave a list: a tuple is one pair of texts."""
    return isinstance(given, Sequence) and not isinstance(given, str | bytes | tuple)


def prepare(
    spec: specs.TextClassifier, usage: dict[str, Any], texts: Any, task: str = ""
) -> dict[str, np.ndarray]:
    """Returns {"tokens", "input_mask"} [B, length], and "task" [B] where the model needs it.

    Args:
      spec: of the model. usage: its tokeniser.
      texts: one or several: strings, UTF-8 bytes, or pairs (tuples) of these. What is too long for
        the model is cut as in training.
      task: one of the model's tasks, if it has several and is told which is asked.

    Raises:
      ValueError: an empty text, or a task that the model does not have.
    """
    coder = coders.of_usage(usage)
    if usage.get("special_tokens"):
        coder = coder._replace(before=(tokenizer.CLS,), after=(tokenizer.SEP,))
    told = spec.has_token and spec.multitask == "task_tokens"
    place = _place(spec, task) if task or told else 0
    texts = texts if several(texts) else [texts]
    if not texts:
        raise ValueError("give at least one text")
    items.texts(list(texts))
    rows = []
    for number, given in enumerate(texts):
        parts = [coder.encode(part) for part in (given if isinstance(given, tuple) else [given])]
        if not parts or not all(len(part) for part in parts):
            raise ValueError(f"text {number} is empty, or one of its parts is; leave it out")
        rows.append(sequences.join(parts, spec.text_length, coder))
    longest = max(map(len, rows))
    length = lengths.padded(longest, spec.text_length)
    tokens, mask = sequences.pad(rows, length, coder)
    inputs = {"tokens": tokens, "input_mask": mask}
    return inputs | {"task": np.full(len(rows), place, np.int32)} if spec.tasks else inputs


def split(text: str) -> Text | tuple[Text, ...]:
    """Returns the pair that people write as "one text[SEP]another"; a text without as it is."""
    parts = tuple(text.split(sequences.SEPARATOR))
    return parts if len(parts) > 1 else text


def classify(
    run: Runner, texts: Any, usage: dict[str, Any], *, top_k: int = 5, task: str = ""
) -> list[list[tuple[str, float]]]:
    """Returns the top_k (label, probability) of each text, best first; or (label, number)."""
    spec = run.model.spec
    _place(spec, task)  # raises
    logits = run.apply(prepare(spec, usage, texts, task))
    columns = spec.columns[task]
    labels = [label.removeprefix(f"{task}: ") for label in usage["labels"][columns]]
    logits = logits[:, columns]
    if len(labels) == 1:
        return [[(labels[0], float(row[0]))] for row in logits]
    return [image.best_of(row[None], labels, top_k) for row in logits]


def _place(spec: specs.TextClassifier, task: str) -> int:
    if task not in spec.columns:
        names = ", ".join(spec.tasks)
        has = f"one of {names}" if names else "no task, as it has only one"
        raise ValueError(f"task={task!r}: this model expects {has}")
    return list(spec.columns).index(task)
