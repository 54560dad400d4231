"""Tasks: what a model learns from a batch. The loop knows a task only through this one value.

A new task is a module with `make(config, info, sequence) -> Task` and a line in `TASKS`.
"""

from typing import Any

from perceiver import Sequence
from train.tasks import classification, masked_lm, sentences, tagging, text_classification
from train.tasks.task import Batch, Task

__all__ = ["TASKS", "Batch", "Task", "make"]

TASKS = {
    "classification": classification.make,
    "masked_lm": masked_lm.make,
    "sentences": sentences.make,
    "tagging": tagging.make,
    "text_classification": text_classification.make,
}


def make(config: Any, info: Any, sequence: Sequence | None = None) -> Task:
    """Returns the task of a config.

    Args:
      config: the whole config; a task reads `model` and `loss`.
      info: the `data.DatasetInfo` of its data set.
      sequence: the mesh axis that splits the model's inputs in training and evaluation, if any.

    Raises:
      ValueError: unknown task, a model and data that do not fit together, or a model without
        cross-attends whose inputs shall be split.
    """
    if config.task not in TASKS:
        raise ValueError(f"unknown task {config.task!r}; choose one of {', '.join(TASKS)}")
    return TASKS[config.task](config, info, sequence)
