"""`rows:PATH`: a user's labelled texts, in a table or in JSON lines.

    rows:FILE.csv             also .tsv, .txt (with tabs) and .jsonl, and each of them with .gz
    rows:FOLDER               with train.csv and validation.csv (or any of the endings above)

Of a single file a tenth of each class is held out, drawn once and for all, or `data.split_field`
names the column that says of each row whether it is for training or validation. `data.text_fields`
names the column of the text, or the two of a pair, and `data.label_field` that of the label. Labels
are classes, in the order of their names (of their values, if they are whole numbers); with
`data.regression` they are numbers.

A row that cannot be used is left out, told with its line and reason, and counted; more than
`data.broken_limit` in a file end the run.
"""

import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from data.dataset import Dataset, DatasetInfo, Example
from data.labelled_text import labelled_text, tables


@dataclasses.dataclass(frozen=True)
class Row:
    """One usable line of a file."""

    texts: tuple[str, ...]
    label: str  # "": none is asked for
    split: str  # what the row says of it, in small letters; "": nothing
    line: int


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Random access to rows; labels by number, or numbers themselves, or none."""

    file: str
    rows: tuple[Row, ...]
    numbers: dict[str, float] | None  # of the labels that occur; None: there are no labels

    def __len__(self) -> int:
        return len(self.rows)

    def example(self, index: int, epoch: int) -> Example:
        """Returns {"texts": strings, "label": number, if any}, the same in every epoch."""
        row = self.rows[index]
        label = {} if self.numbers is None else {"label": self.numbers[row.label]}
        return {"texts": row.texts} | label

    def name(self, index: int) -> str:
        """Returns the file and line."""
        return f"{self.file}, line {self.rows[index].line}"


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split."""
    source = scan(config, _fields(config))[0][split]
    return labelled_text.dataset(source, config, numbers=config.regression)


def info(config: Any) -> DatasetInfo:
    """Returns the facts; all rows are read."""
    return facts(config, _fields(config))


def facts(config: Any, fields: tuple[str, ...]) -> DatasetInfo:
    """Returns the facts about rows with these fields as texts."""
    splits, classes = scan(config, fields)
    return DatasetInfo(
        name=config.source,
        examples={split: len(source) for split, source in splits.items()},
        labels=classes,
    )


def scan(config: Any, fields: tuple[str, ...]) -> tuple[dict[str, Rows], tuple[str, ...] | None]:
    """Returns the rows of both splits, and the names of the classes; None: without labels.

    Raises:
      FileNotFoundError: no such file, or a folder without one of both.
      ValueError: a file of another kind, no usable row, too many bad ones, or a single class.
    """
    files = tables.files(config.source)
    return _scan(
        tuple(files.items()),
        tuple(file.stat().st_mtime_ns for file in files.values()),
        fields,
        config.label_field,
        config.regression,
        config.split_field,
        (config.train_split.lower(), config.eval_split.lower()),
        config.broken_limit,
    )


@functools.lru_cache(maxsize=4)  # the facts and both splits ask for the same files
def _scan(files, changed, fields, label_field, regression, split_field, named, limit):
    del changed  # makes an edited file another one

    parse = _parser(fields, label_field, split_field, regression)
    columns = [name for name in (*fields, label_field, split_field) if name]
    by_split = {split: tables.read(file, parse, limit, columns) for split, file in files}
    names = dict(files)
    if split_field:
        rows = [row for split in by_split.values() for row in split]
        by_split = _by_name(rows, split_field, *named)
    elif "validation" not in by_split:
        by_class = bool(label_field) and not regression
        by_split = tables.held_out(by_split["train"], lambda row: row.label if by_class else None)
    for split, rows in by_split.items():
        if not rows:
            raise ValueError(f"{names.get(split, names['train'])} has no usable rows for {split}")
    classes, numbers = None, None
    if label_field and regression:
        classes = labelled_text.SCORE
        numbers = {row.label: float(row.label) for rows in by_split.values() for row in rows}
    elif label_field:
        classes = _in_order({row.label for row in by_split["train"]})
        numbers = {name: number for number, name in enumerate(classes)}
        _check_classes(classes, by_split["validation"], names)
    splits = {
        split: Rows(str(names.get(split, names["train"])), tuple(rows), numbers)
        for split, rows in by_split.items()
    }
    return splits, classes


def _parser(
    fields: tuple[str, ...], label_field: str, split_field: str, regression: bool
) -> Callable[[dict, int], Row | str]:
    """Returns what makes a `Row` of a record and its line, or says why it cannot."""

    def parse(record: dict, line: int) -> Row | str:
        others = [name for name in (label_field, split_field) if name]
        wrong = tables.problem(record, fields, others)
        if wrong:
            return wrong
        label, split = (
            unicodedata.normalize("NFC", str(record[name]).strip()) if name else ""
            for name in (label_field, split_field)
        )
        if label_field and regression and not tables.is_number(label):
            return f"{label_field!r} is not a number: {label!r}"[:200]
        return Row(tuple(record[name] for name in fields), label, split.lower(), line)

    return parse


def read_file(
    path: Path, fields: Sequence[str], label_field: str, *, regression: bool = False, limit: int = 0
) -> list[Row]:
    """Returns the usable rows of one file, all of them.

    Args:
      path: of the file.
      fields: the columns of the texts.
      label_field: the column of the label.
      regression: whether labels are numbers.
      limit: how many rows may be unusable.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file of another kind, no usable row, or too many bad ones.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    parse = _parser(tuple(fields), label_field, "", regression)
    columns = [name for name in (*fields, label_field) if name]
    rows = tables.read(tables.files(f"rows:{path}")["train"], parse, limit, columns)
    if not rows:
        raise ValueError(f"{path} has no usable rows")
    return rows


def _fields(config: Any) -> tuple[str, ...]:
    if not config.label_field:
        raise ValueError(
            "data.label_field is empty, but rows:PATH needs labels; set it to their column"
        )
    return tuple(config.text_fields) or ("text",)


def _by_name(rows: Sequence[Row], field: str, train: str, validation: str) -> dict[str, list[Row]]:
    """Returns the rows of each split, by what they say of it.

    Raises:
      ValueError: none says that it is of such a split.
    """
    there = list(dict.fromkeys(row.split for row in rows))
    by_name = {}
    for split, given in (("train", train), ("validation", validation)):
        names = [given] if given else tables.SPLITS[split]
        name = next((name for name in names if name in there), None)
        if name is None:
            option = "train_split" if split == "train" else "eval_split"
            raise ValueError(
                f"no row has {' or '.join(names)} in column {field!r}, only {', '.join(there)}: "
                f"set data.{option}"
            )
        by_name[split] = [row for row in rows if row.split == name]
    return by_name


def _in_order(names: set[str]) -> tuple[str, ...]:
    whole = all(name.lstrip("-").isdecimal() for name in names)
    return tuple(sorted(names, key=int if whole else None))


def _check_classes(classes: Sequence[str], validation: Sequence[Row], names: dict) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"{names['train']} has only one class, {classes[0]!r}; if the labels are numbers to "
            "predict, set data.regression=True"
        )
    unknown = next((row for row in validation if row.label not in classes), None)
    if unknown is not None:
        raise ValueError(
            f"{names.get('validation', names['train'])}, line {unknown.line}: no training row has "
            f"the class {unknown.label!r}; remove this row, or add training rows of that class"
        )
    held = {row.label for row in validation}
    unseen = [name for name in classes if name not in held]
    if unseen:
        logging.warning(
            "%s: no row of %d of the %d classes (%s ...): their accuracy is not measured",
            names.get("validation", names["train"]),
            len(unseen),
            len(classes),
            ", ".join(unseen[:3]),
        )
