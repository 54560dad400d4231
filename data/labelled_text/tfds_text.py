"""`tfds_text:NAME`: labelled texts in TFDS's format, such as GLUE's tasks (`tfds_text:glue/cola`).

Reads prepared array_record files without TensorFlow. Which features are the texts is known of
GLUE's tasks; of other sets `data.text_fields` and `data.label_field` say it. Several names with "+"
in between are several tasks at once, each example being of one of them, in proportion to their
sizes.

MNLI is evaluated on its matched and mismatched validation sets together, which are of one size
within 0.2 %; `glue/mnli_matched` and `glue/mnli_mismatched` are the same training set with one.
"""

import bisect
import dataclasses
import itertools
from pathlib import Path
from typing import Any

from data import prepared
from data.dataset import Dataset, DatasetInfo, Example
from data.images import tfds_images
from data.labelled_text import labelled_text

# Of GLUE's tasks: the features that are texts. WNLI is left out, as in the paper (appendix F.4).
GLUE = {
    "cola": ("sentence",),
    "sst2": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "stsb": ("sentence1", "sentence2"),
    "mnli": ("premise", "hypothesis"),
    "mnli_matched": ("premise", "hypothesis"),
    "mnli_mismatched": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "rte": ("sentence1", "sentence2"),
}
# Of other sets of the catalogue.
_OTHERS = {"snli": ("premise", "hypothesis"), "multi_nli": ("premise", "hypothesis")}
# Where a name's files and its validation split are others than the catalogue's rule would say:
# its `glue/mnli_matched` has no training split.
_MNLI_VALIDATION = {
    "glue/mnli": "validation_matched+validation_mismatched",
    "glue/mnli_matched": "validation_matched",
    "glue/mnli_mismatched": "validation_mismatched",
    "multi_nli": "validation_matched+validation_mismatched",
}
_DEFAULT_FIELDS = ("text",)


@dataclasses.dataclass(frozen=True)
class Task:
    """One data set: where its texts and labels are."""

    name: str  # as in the source: "glue/cola"
    builder: Any
    fields: tuple[str, ...]
    label_field: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, or SCORE."""
        names = getattr(self.builder.info.features[self.label_field], "names", None)
        return tuple(names) if names else labelled_text.SCORE

    @property
    def short(self) -> str:
        """The last word of the name."""
        return self.name.rpartition("/")[2]


@dataclasses.dataclass(frozen=True, eq=False)
class TaskTexts:
    """Random access to the examples of one or several TFDS data sources, one after another."""

    tasks: tuple[Task, ...]
    records: tuple[Any, ...]  # tfds.core.data_sources.BaseDataSource, of each task

    def __len__(self) -> int:
        return self._starts[-1]

    def example(self, index: int, epoch: int) -> Example:
        """Returns {"texts": UTF-8 of each, "label": number, "task": int}."""
        task = bisect.bisect_right(self._starts, index) - 1
        record = self.records[task][index - self._starts[task]]
        texts = tuple(record[field] for field in self.tasks[task].fields)
        return {"texts": texts, "label": record[self.tasks[task].label_field], "task": task}

    def name(self, index: int) -> str:
        """Returns the task's name and the example's number in it."""
        task = bisect.bisect_right(self._starts, index) - 1
        return f"{self.tasks[task].name}, example {index - self._starts[task]}"

    @property
    def _starts(self) -> list[int]:
        return list(itertools.accumulate(map(len, self.records), initial=0))


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split of one task or of several."""
    tasks = open_tasks(config)
    return labelled_text.dataset(
        texts(tasks, split, config),
        config,
        numbers=any(task.labels == labelled_text.SCORE for task in tasks),
        several=len(tasks) > 1,
    )


def info(config: Any) -> DatasetInfo:
    """Returns the facts from the builders' metadata; no example is read."""
    tasks = open_tasks(config)
    labels = tuple(itertools.chain(*(task.labels for task in tasks)))
    several = {task.short: len(task.labels) for task in tasks}
    if len(several) > 1:
        labels = tuple(f"{task.short}: {label}" for task in tasks for label in task.labels)
    return DatasetInfo(
        name=config.source,
        examples={split: size(tasks, split, config) for split in ("train", "validation")},
        labels=labels,
        tasks=several,
    )


def texts(tasks: tuple[Task, ...], split: str, config: Any) -> TaskTexts:
    """Returns the examples of a split of all tasks."""
    records = tuple(
        task.builder.as_data_source(split=split_name(task, split, config)) for task in tasks
    )
    return TaskTexts(tasks, records)


def size(tasks: tuple[Task, ...], split: str, config: Any) -> int:
    """Returns how many they are, from the metadata."""
    return sum(
        task.builder.info.splits[part].num_examples
        for task in tasks
        for part in split_name(task, split, config).split("+")
    )


def open_tasks(config: Any) -> tuple[Task, ...]:
    """Returns the tasks of the configured source, checked to hold texts and labels.

    Raises:
      ValueError: an unknown name, the same task twice, or features that are not there.
      FileNotFoundError: a data set is not prepared in `config.data_dir`.
    """
    names = config.source.partition(":")[2].split("+")
    if len(set(names)) < len(names):
        raise ValueError(f"data.source {config.source!r} names a task twice")
    return tuple(_open(name, config) for name in names)


def split_name(task: Task, split: str, config: Any) -> str:
    """Returns the catalogue's name of "train" or "validation" of a task.

    `config.train_split` and `config.eval_split` win, as with pictures.

    Raises:
      ValueError: there is no such split.
    """
    if split == "validation" and task.name in _MNLI_VALIDATION and not config.eval_split:
        return _MNLI_VALIDATION[task.name]
    return tfds_images.split_name(task.builder, split, config)


def _open(name: str, config: Any) -> Task:
    files = "glue/mnli" if name in ("glue/mnli_matched", "glue/mnli_mismatched") else name
    builder = prepared.open_builder(
        files,
        config.data_dir,
        lambda folder: _prepare_command(files, folder),
        tfds_images.check_known,
    )
    known = _OTHERS.get(name, ())
    if name.startswith("glue/"):
        known = GLUE.get(name.removeprefix("glue/"), ())
    fields = tuple(config.text_fields) or known or _DEFAULT_FIELDS
    features = builder.info.features
    for option, wanted in (("text_fields", fields), ("label_field", (config.label_field,))):
        if missing := [field for field in wanted if field not in features]:
            raise ValueError(
                f"{name!r} has no feature {missing[0]!r}, only {sorted(features)}: set "
                f"data.{option}"
            )
    return Task(name, builder, fields, config.label_field)


def _prepare_command(name: str, folder: Path) -> str:
    return f"`python -m data.prepare tfds {name} --data_dir={folder}` (extra `prepare`: TensorFlow)"
