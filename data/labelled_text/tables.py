"""Tables of texts that people have: CSV, TSV and JSON lines, read row by row.

A row that cannot be used is left out, told with its line and reason, and counted; more than a limit
of them in a file are an error.
"""

import csv
import gzip
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl")  # .txt: cells between tabs, as .tsv
HELD_OUT = 10  # of a single file one good row in so many
_MAX_CELL = 2**17  # characters: a quote that never ends shall not swallow a table
# What people call a split, the preferred name first.
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev", "trial", "test")}


def read(path: Path, parse: Callable[[dict, int], Any], limit: int) -> list[Any]:
    """Returns what `parse(record, line)` makes of the rows; tells and counts those that it refuses.

    Args:
      path: of the file.
      parse: returns a row, or in words why there is none.
      limit: rows that may be left out.

    Raises:
      ValueError: more of them are.
    """
    rows, left_out = [], []
    for line, record in records(path):
        parsed = record if isinstance(record, str) else parse(record, line)
        if isinstance(parsed, str):
            left_out.append(f"line {line}: {parsed}")
        else:
            rows.append(parsed)
    if left_out:
        summary = f"{path}: {len(left_out)} of {len(left_out) + len(rows)} rows cannot be used"
        first = "; ".join(left_out[:3])
        if len(left_out) > limit:
            raise ValueError(
                f"{summary}, and data.broken_limit is {limit}. The first: {first}. Repair or "
                "remove them, or raise the limit"
            )
        logging.warning("%s: %s", summary, first)
    return rows


def problem(record: dict, texts: Sequence[str], others: Sequence[str]) -> str | None:
    """Returns what is wrong with the named cells of a row, if anything is.

    Args:
      record: {field: value}.
      texts: fields that must be texts with something in them.
      others: fields that must be there, and be no lists or objects.
    """
    for name in (*texts, *others):
        if record.get(name) is None:
            return f"no field {name!r}, only {', '.join(map(str, record))}"[:200]
    for name in texts:
        text = record[name]
        if not isinstance(text, str):
            return f"{name!r} is not text: {text!r}"[:200]
        if not text.strip():
            return f"{name!r} is empty"
        if "\ufffd" in text:
            return f"{name!r} is not valid UTF-8"
    for name in others:
        value = record[name]
        if isinstance(value, dict | list):
            return f"{name!r} is not a label: {value!r}"[:200]
        if not str(value).strip():
            return f"{name!r} is empty"
    return None


def held_out(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Splits the rows of a single file: every tenth is held out."""
    return {
        "train": [row for i, row in enumerate(rows, start=1) if i % HELD_OUT],
        "validation": list(rows[HELD_OUT - 1 :: HELD_OUT]),
    }


def files(source: str) -> dict[str, Path]:
    """Returns split -> file of `rows:PATH`; without "validation" where one file has both.

    Raises:
      FileNotFoundError: no such file, or a folder without one of both.
      ValueError: a file of another kind.
    """
    path = Path(source.partition(":")[2]).expanduser()
    if path.is_file():
        if _suffix(path) not in SUFFIXES:
            raise ValueError(f"{source} is not a {', '.join(SUFFIXES)} file (optionally with .gz)")
        return {"train": path}
    if not path.is_dir():
        raise FileNotFoundError(f"data.source {source}: no such file or folder")
    by_split = {}
    for split, names in SPLITS.items():
        endings = itertools.product(names, SUFFIXES, ("", ".gz"))
        candidates = (path / "".join(parts) for parts in endings)
        by_split[split] = next((file for file in candidates if file.is_file()), None)
        if by_split[split] is None:
            raise FileNotFoundError(
                f"{path} has no {split} file: name one {split}{' or '.join(SUFFIXES)}, or give a "
                "single file, which is then split"
            )
    return by_split


def records(path: Path) -> Iterator[tuple[int, dict | str]]:
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
        reader = csv.reader(file, delimiter="\t" if _suffix(path) in (".tsv", ".txt") else ",")
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
                yield line, f"{len(cells)} cells, but the header has {len(header)}"
            else:
                yield line, dict(zip(header, cells, strict=True))


def _json(line: str) -> dict | str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"[:200]
    return record if isinstance(record, dict) else "not a JSON object"


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def is_number(text: str) -> bool:
    """Returns whether a cell is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
