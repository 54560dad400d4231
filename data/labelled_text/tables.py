"""Tables of texts that people have: CSV, TSV and JSON lines, read row by row.

A row that cannot be used is left out, told with its line and reason, and counted; more than a limit
of them in a file are an error.
"""

import codecs
import csv
import gzip
import io
import itertools
import json
import math
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl")  # .txt: cells between tabs, as .tsv
HELD_OUT = 10  # of a single file one good row in so many
_MAX_CELL = 2**17  # characters: a quote that never ends shall not swallow a table
_MAX_LINE = 2**24  # characters: a file of one endless line shall not fill the memory
_SEPARATORS = ",;\t|"  # of a .csv, the usual first
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # Excel's "Unicode text"
# What people call a split, the preferred name first.
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev", "trial", "test")}


def read(
    path: Path, parse: Callable[[dict, int], Any], limit: int, fields: Sequence[str] = ()
) -> list[Any]:
    """Returns what `parse(record, line)` makes of the rows; tells and counts those that it refuses.

    Args:
      path: of the file.
      parse: returns a row, or in words why there is none.
      limit: rows that may be left out.
      fields: columns that a table must have.

    Raises:
      ValueError: more of them are, a column is missing, or the file cannot be read to its end.
    """
    rows, left_out = [], []
    for line, record in records(path, fields):
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
        if wrong := undecoded(text):
            return f"{name!r} {wrong}"
    for name in others:
        value = record[name]
        if isinstance(value, dict | list):
            return f"{name!r} is not a label: {value!r}"[:200]
        if not str(value).strip():
            return f"{name!r} is empty"
        if str(value).strip().lower() == "nan":
            return f"{name!r} is missing: {value}"
        if wrong := undecoded(str(value)):
            return f"{name!r} {wrong}"
    return None


def undecoded(text: str) -> str:
    """Returns what is wrong with the characters of a text; empty if nothing is."""
    if "\ufffd" in text:
        return "is not valid UTF-8: convert the file, as by iconv -f latin1 -t utf-8"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "has half a character (a lone surrogate, such as \\ud83d)"
    return ""


def held_out(rows: Sequence[Any], label: Callable[[Any], Hashable]) -> dict[str, list[Any]]:
    """Splits the rows of a single file: of each label a tenth is held out, drawn, one at least.

    The same rows whenever the file is the same. Where labels are classes of one row each, or are
    numbers, `label` returns the same for all rows.
    """
    by_label: dict[Hashable, list[int]] = {}
    for index, row in enumerate(rows):
        by_label.setdefault(label(row), []).append(index)
    rng, out = np.random.default_rng(0), set()
    for indices in by_label.values():
        size = max(1, round(len(indices) / HELD_OUT)) if len(indices) > 1 else 0
        out.update(rng.permutation(indices)[:size].tolist())
    return {
        "train": [row for index, row in enumerate(rows) if index not in out],
        "validation": [row for index, row in enumerate(rows) if index in out],
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
    by_split, there = {}, {file.name.lower(): file for file in path.iterdir() if file.is_file()}
    for split, names in SPLITS.items():
        endings = itertools.product(names, SUFFIXES, ("", ".gz"))
        candidates = (there.get("".join(parts)) for parts in endings)
        by_split[split] = next((file for file in candidates if file is not None), None)
        if by_split[split] is None:
            raise FileNotFoundError(
                f"{path} has no {split} file: name one {split}{' or '.join(SUFFIXES)}, or give a "
                "single file, which is then split"
            )
    return by_split


def records(path: Path, fields: Sequence[str] = ()) -> Iterator[tuple[int, dict | str]]:
    """Yields (line, {field: value}, or what is wrong with the line).

    Args:
      path: of the file: UTF-8, or UTF-16 with its mark.
      fields: columns that a table must have.

    Raises:
      ValueError: a column is missing, or the file cannot be read to its end; says what is there.
    """
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rb") as content:
            wide = content.read(2) in _UTF_16
            content.seek(0)
            encoding = "utf-16" if wide else "utf-8-sig"
            # Invalid bytes are seen by the row that holds them: one shall not end the file.
            file = io.TextIOWrapper(content, encoding, errors="replace", newline="")
            lines, json_lines = _bounded(path, file), _suffix(path) == ".jsonl"
            yield from _json_lines(lines) if json_lines else _rows(path, lines, fields)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read to its end: {error}; it is cut short or no gzip file: copy or "
            "pack it again"
        ) from error


def _bounded(path: Path, file: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise ValueError(
                f"{path}: line {number} has more than {_MAX_LINE:,} characters: this is no table "
                "of rows; break it into lines"
            )
        yield line


def _json_lines(lines: Iterable[str]) -> Iterator[tuple[int, dict | str]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _json(line)


def _rows(
    path: Path, lines: Iterable[str], fields: Sequence[str]
) -> Iterator[tuple[int, dict | str]]:
    csv.field_size_limit(_MAX_CELL)  # of the whole process: another reader may have moved it
    table = parsed(lines, _suffix(path))
    _, header = next(table, (1, []))
    if isinstance(header, str):
        raise ValueError(
            f"{path}: its first line, the names of the columns, cannot be read: {header}"
        )
    missing = [name for name in fields if name not in header]
    if missing:
        raise ValueError(
            f"{path} has no column {' or '.join(map(repr, missing))}: its first line has "
            f"{', '.join(map(repr, header))}"[:400]
            + ". Set data.text_fields and data.label_field to its names; a table without names "
            "needs a first line with them"
        )
    for line, cells in table:
        if isinstance(cells, str):
            yield line, cells
        elif len(cells) != len(header):
            yield line, f"{len(cells)} cells, but the header has {len(header)}"
        else:
            yield line, dict(zip(header, cells, strict=True))


def parsed(lines: Iterable[str], suffix: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yields (line, cells, or what is wrong with the row), the names of the columns first.

    A .csv has the separator that makes the most columns, commas where it is equal. Between tabs a
    quotation mark is text, as in GLUE and most such files, unless the row can only be read with it
    as one: a cell with lines or with doubled quotation marks. Where names are quoted all cells are.

    Args:
      lines: with their ends.
      suffix: .csv, .tsv or .txt.
    """
    lines = iter(lines)
    first = next(lines, "")
    if suffix == ".csv" or first.startswith('"'):
        table = _quoted(itertools.chain([first], lines), first, suffix)
    else:
        header = first.rstrip("\r\n").split("\t")
        table = itertools.chain([(1, header)], _between_tabs(lines, len(header)))
    names = next(table, None)
    if names is not None:
        wrong = isinstance(names[1], str)
        yield names if wrong else (1, [name.strip() for name in names[1]])
        yield from table


def _quoted(
    lines: Iterable[str], header: str, suffix: str
) -> Iterator[tuple[int, list[str] | str]]:
    def columns(separator: str) -> int:
        return len(next(csv.reader([header], delimiter=separator), []))

    separator = max(_SEPARATORS, key=columns) if suffix == ".csv" else "\t"
    # strict: a quote that is closed by the next row's, and swallows what lies between, is a fault
    blanks = f"{separator} " in header
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=blanks, strict=True)
    while True:
        line = reader.line_num + 1  # where the row begins: a quoted text may span lines
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # also a cell longer than the limit
            yield line, str(error)
            continue
        if cells:
            yield line, cells


def _between_tabs(lines: Iterator[str], columns: int) -> Iterator[tuple[int, list[str] | str]]:
    numbered, ahead, longest = enumerate(lines, start=2), [], csv.field_size_limit()

    def continued(row: str) -> list[str] | None:
        """Returns the cells of a row that goes on in the lines ahead, and takes these."""
        count = 0
        while len(row) <= longest:
            count += 1
            if len(ahead) < count:
                ahead.extend(itertools.islice(numbered, 1))
            if len(ahead) < count:
                break
            row += ahead[count - 1][1]
            if cells := _one_row(row, columns):
                del ahead[:count]
                return cells
            if ahead[count - 1][1].count("\t") + 1 >= columns:  # another row
                break
        return None

    while True:
        number, line = ahead.pop(0) if ahead else next(numbered, (0, ""))
        if not number:
            return
        text = line.rstrip("\r\n")
        if not text:
            continue
        if len(text) > columns * longest:
            yield number, f"a line of {len(text)} characters"
            continue
        cells = text.split("\t")
        is_open = any(cell.startswith('"') and cell.count('"') % 2 for cell in cells)
        whole = continued(line) if is_open else None
        if whole is None and len(cells) > columns:  # a tab in quotation marks
            whole = _one_row(line, columns, tabs=True)
        yield number, whole or [_unquoted(cell) for cell in cells]


def _one_row(text: str, columns: int, *, tabs: bool = False) -> list[str] | None:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True))
    except csv.Error:
        return None
    fits = len(rows) == 1 and len(rows[0]) == columns
    return rows[0] if fits and (tabs or not any("\t" in x for x in rows[0])) else None


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    is_quoted = cell.startswith('"') and cell.endswith('"') and '""' in inner
    if not is_quoted or '"' in inner.replace('""', ""):
        return cell
    return inner.replace('""', '"')


def _json(line: str) -> dict | str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"[:200]
    return record if isinstance(record, dict) else "not a JSON object"


def _suffix(path: Path) -> str:
    packed = path.suffix.lower() == ".gz"
    return (Path(path.stem).suffix if packed else path.suffix).lower()


def is_number(text: str) -> bool:
    """Returns whether a cell is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
