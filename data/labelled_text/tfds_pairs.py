"""`tfds_pairs:NAME`: pairs of texts with a label in TFDS's format, each text by itself.

`tfds_pairs:snli+multi_nli` is both sets, one after another, as Sentence-BERT trains on (section
3.1); `tfds_pairs:glue/stsb` has scores from 0 to 5. Features, splits and files are those of
`tfds_text:NAME`. Rows of SNLI without a gold label (-1) are left out and counted, as broken ones.
"""

from typing import Any

from data.dataset import Dataset, DatasetInfo
from data.labelled_text import sentence_pairs, tfds_text

_SCORES = {"glue/stsb": (0.0, 5.0)}


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split of one set or of several."""
    tasks = _open(config)
    source = tfds_text.texts(tasks, split, config)
    score_range = _SCORES.get(tasks[0].name, (0.0, 1.0))
    return sentence_pairs.dataset(source, config, info(config), score_range=score_range)


def info(config: Any) -> DatasetInfo:
    """Returns the facts from the builders' metadata; no example is read."""
    tasks = _open(config)
    return DatasetInfo(
        name=config.source,
        examples={split: tfds_text.size(tasks, split, config) for split in ("train", "validation")},
        labels=tasks[0].labels,
        texts=len(tasks[0].fields),
    )


def _open(config: Any) -> tuple[tfds_text.Task, ...]:
    """Returns the sets, checked to be of one kind.

    Raises:
      ValueError: single texts, or sets that differ in their labels or numbers of texts.
    """
    tasks = tfds_text.open_tasks(config)
    for task in tasks:
        if len(task.fields) not in (2, 3):
            raise ValueError(
                f"{task.name!r} has the text features {task.fields}, which are not a pair: set "
                "data.text_fields to two text features, or to three"
            )
        if (task.labels, len(task.fields)) != (tasks[0].labels, len(tasks[0].fields)):
            raise ValueError(
                f"{tasks[0].name!r} has {len(tasks[0].fields)} texts and the labels "
                f"{tasks[0].labels}, but {task.name!r} has {len(task.fields)} and {task.labels}: "
                "combine data sets of the same form only"
            )
    return tasks
