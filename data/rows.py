"""`rows:PATH`: a user's labelled texts, in a table or in JSON lines.

    rows:FILE.csv             also .tsv and .jsonl, and each of them with .gz
    rows:FOLDER               with train.csv and validation.csv (or any of the endings above)

Of a single file every tenth good row is held out. `data.text_fields` names the column of the text,
or the two of a pair, and `data.label_field` that of the label. Labels are classes, in the order of
their names (of their values, if they are whole numbers); with `data.regression` they are numbers.

A row that cannot be used is left out, told with its line and reason, and counted; more than
`data.broken_limit` in a file end the run.
"""

import csv
import dataclasses
import functools
import gzip
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from data import labelled_text
from data.dataset import Dataset, DatasetInfo, Example

SUFFIXES = (".csv", ".tsv", ".jsonl")
_HELD_OUT = 10  # one in so many
_MAX_CELL = 2**17  # characters: a quote that never ends shall not swallow a table
_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev", "test")}


@dataclasses.dataclass(frozen=True)
class Row:
    """One usable line of a file."""

    texts: tuple[str, ...]
    label: str
    line: int


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Random access to rows; labels by number, or numbers themselves."""

    file: str
    rows: tuple[Row, ...]
    labels: dict[str, int] | None  # None: numbers

    def __len__(self) -> int:
        return len(self.rows)

    def example(self, index: int, epoch: int) -> Example:
        """Returns {"texts": strings, "label": number}, the same in every epoch."""
        row = self.rows[index]
        label = float(row.label) if self.labels is None else self.labels[row.label]
        return {"texts": row.texts, "label": label}

    def name(self, index: int) -> str:
        """Returns the file and line."""
        return f"{self.file}, line {self.rows[index].line}"


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split."""
    source = scan(config)[0][split]
    return labelled_text.dataset(source, config, numbers=config.regression)


def info(config: Any) -> DatasetInfo:
    """Returns the facts; all rows are read."""
    splits, classes = scan(config)
    return DatasetInfo(
        name=config.source,
        examples={split: len(source) for split, source in splits.items()},
        labels=classes,
    )


def scan(config: Any) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """Returns the rows of both splits, and the names of the classes.

    Raises:
      FileNotFoundError: no such file, or a folder without one of both.
      ValueError: a file of another kind, no usable row, too many bad ones, or a single class.
    """
    path = Path(config.source.partition(":")[2]).expanduser()
    files = _files(path)
    changed = tuple(file.stat().st_mtime_ns for file in files.values())
    return _scan(
        tuple(files.items()),
        changed,
        tuple(config.text_fields) or ("text",),
        config.label_field,
        config.regression,
        config.broken_limit,
    )


@functools.lru_cache(maxsize=4)  # the facts and both splits ask for the same files
def _scan(files, changed, fields, label_field, regression, limit):
    del changed  # makes an edited file another one
    found = {split: _read(file, fields, label_field, regression, limit) for split, file in files}
    if "validation" not in found:
        rows = found["train"]
        found["validation"] = rows[_HELD_OUT - 1 :: _HELD_OUT]
        found["train"] = [row for i, row in enumerate(rows, start=1) if i % _HELD_OUT]
    names = dict(files)
    for split, rows in found.items():
        if not rows:
            raise ValueError(f"{names.get(split, names['train'])} has no usable row for {split}")
    if regression:
        classes, labels = labelled_text.SCORE, None
    else:
        classes = _in_order({row.label for row in found["train"]})
        labels = {name: number for number, name in enumerate(classes)}
        _check_classes(classes, found["validation"], names)
    splits = {
        split: Rows(str(names.get(split, names["train"])), tuple(rows), labels)
        for split, rows in found.items()
    }
    return splits, classes


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
        raise FileNotFoundError(f"{path}: there is no such file")
    rows = _read(_files(path)["train"], tuple(fields), label_field, regression, limit)
    if not rows:
        raise ValueError(f"{path} has no usable row")
    return rows


def _read(path: Path, fields, label_field, regression: bool, limit: int) -> list[Row]:
    """Returns the usable rows; tells and counts the others."""
    rows, left_out = [], []
    for line, record in _records(path):
        reason = record if isinstance(record, str) else None
        if reason is None:
            reason, row = _row(record, line, fields, label_field, regression)
        if reason is None:
            rows.append(row)
        else:
            left_out.append(f"line {line}: {reason}")
    if left_out:
        told = f"{path}: {len(left_out)} of {len(left_out) + len(rows)} rows are left out"
        first = "; ".join(left_out[:3])
        if len(left_out) > limit:
            raise ValueError(
                f"{told}, and data.broken_limit is {limit}. The first: {first}. Repair or remove "
                "them, or raise the limit"
            )
        logging.warning("%s: %s", told, first)
    return rows


def _row(record: dict, line: int, fields, label_field, regression):
    """Returns (None, row), or (why it cannot be used, None)."""
    values = [record.get(name) for name in (*fields, label_field)]
    for name, value in zip((*fields, label_field), values, strict=True):
        if value is None:
            return f"no field {name!r}, only {', '.join(map(str, record))}"[:200], None
    *texts, label = values
    for name, text in zip(fields, texts, strict=True):
        if not isinstance(text, str):
            return f"{name!r} is no text but {text!r}"[:200], None
        if not text.strip():
            return f"{name!r} is empty", None
        if "\ufffd" in text:
            return f"{name!r} is no valid UTF-8", None
    if isinstance(label, dict | list):
        return f"{label_field!r} is no label but {label!r}"[:200], None
    label = str(label).strip()
    if not label:
        return f"{label_field!r} is empty", None
    if regression and not _is_number(label):
        return f"{label_field!r} is no number but {label!r}"[:200], None
    return None, Row(tuple(texts), label, line)


def _records(path: Path) -> Iterator[tuple[int, dict | str]]:
    """Yields (line, {field: value}, or what is wrong with the line)."""
    opened = gzip.open if path.suffix == ".gz" else open
    # Invalid bytes are seen by the row that holds them: one of them shall not end the file.
    with opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
        if _suffix(path) == ".jsonl":
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _json(line)
            return
        csv.field_size_limit(_MAX_CELL)  # of the whole process: another reader may have moved it
        reader = csv.reader(file, delimiter="\t" if _suffix(path) == ".tsv" else ",")
        header = next(reader, [])
        while True:
            line = reader.line_num + 1  # where the row begins: a quoted text may span lines
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:  # a cell longer than the limit
                yield line, str(error)
                continue
            if not cells:
                continue
            if len(cells) != len(header):
                yield line, f"{len(cells)} cells where the first line has {len(header)}"
            else:
                yield line, dict(zip(header, cells, strict=True))


def _json(line: str) -> dict | str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON ({error})"[:200]
    return record if isinstance(record, dict) else "no JSON object"


def _files(path: Path) -> dict[str, Path]:
    """Returns split -> file; without "validation" where there is one file for both."""
    if path.is_file():
        if _suffix(path) not in SUFFIXES:
            raise ValueError(f"rows:{path} is none of {', '.join(SUFFIXES)} (perhaps with .gz)")
        return {"train": path}
    if not path.is_dir():
        raise FileNotFoundError(f"data.source rows:{path}: there is no such file or folder")
    found = {}
    for split, names in _NAMES.items():
        endings = itertools.product(names, SUFFIXES, ("", ".gz"))
        candidates = (path / "".join(parts) for parts in endings)
        found[split] = next((file for file in candidates if file.is_file()), None)
        if found[split] is None:
            raise FileNotFoundError(
                f"{path} has no {split} file: name one {split}{' or '.join(SUFFIXES)}, or give a "
                "single file, of which some rows are held out"
            )
    return found


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _in_order(names: set[str]) -> tuple[str, ...]:
    whole = all(name.lstrip("-").isdecimal() for name in names)
    return tuple(sorted(names, key=int if whole else None))


def _check_classes(classes: Sequence[str], validation: Sequence[Row], names: dict) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"{names['train']} has one class only, {classes[0]!r}; if labels are numbers to be "
            "predicted, set data.regression=True"
        )
    unknown = next((row for row in validation if row.label not in classes), None)
    if unknown is not None:
        raise ValueError(
            f"{names.get('validation', names['train'])}, line {unknown.line}: no training row has "
            f"the class {unknown.label!r}; remove it, or add some to train on"
        )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
