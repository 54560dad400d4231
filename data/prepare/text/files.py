"""Reads documents from text files, JSON lines and CSV tables, a line at a time.

Nothing longer than `max_line_bytes` and one piece of a file is ever held.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from data.labelled_text import tables
from data.prepare.text import pieces
from data.prepare.text.pieces import Fault, Pieces, Reading, Text

LONGEST = 2**20  # bytes of a plain text file after which it goes on as another document
_HEAD = 8192  # bytes that tell text from other files
_BLOCK = 2**20
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}
# Control characters that text has: white space, backspace, and the escape of terminal colours.
_TEXT = bytes({*range(32, 256), 7, 8, 9, 10, 11, 12, 13, 27} - {127})


def open_file(path: Path) -> BinaryIO:
    """Returns a file's content, unpacked if its name ends in .gz or .zst.

    Raises:
      ImportError: PyArrow, which unpacks .zst, is missing.
    """
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path, "rb"), _BLOCK)
    if path.suffix == ".zst":
        return io.BufferedReader(_Unpacked(path), _BLOCK)
    return path.open("rb", buffering=_BLOCK)


def read(path: Path, suffix: str, reading: Reading) -> Pieces:
    """Yields the documents of a file by its kind: ".jsonl", ".csv", ".tsv", or any other text.

    A file that cannot be read to its end is a fault after what could be read.
    """
    place = str(path)
    try:
        with open_file(path) as file:
            head = file.peek(_HEAD)[:_HEAD]
            if reason := _not_text(head):
                yield Fault("binary", place, reason)
                return
            if not head:
                yield Fault("empty", place, "no bytes")
                return
            if head.startswith(b"\xef\xbb\xbf"):
                file.read(3)  # a byte order mark is no part of the text
            readers = {".jsonl": _json_lines, ".csv": _table, ".tsv": _table}
            yield from readers.get(suffix, _plain)(file, place, suffix, reading)
    except (OSError, EOFError, zlib.error) as error:
        yield Fault("broken", place, f"cannot be read to the end: {error}")


def _not_text(head: bytes) -> str:
    """Returns why a file that begins so is no UTF-8 text; empty if it may be."""
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return f"looks like {name}, not UTF-8 text"
    if b"\0" in head:
        return f"a zero byte at {head.index(0)}"
    odd = len(head.translate(None, _TEXT))
    return f"{odd} control characters in {len(head)} bytes" if odd > len(head) / 10 else ""


def lines(file: BinaryIO, place: str, longest: int) -> Iterator[tuple[int, bytes | Fault]]:
    """Yields (number from 1, line with its end); a fault in place of one that is too long."""
    number = 0
    while line := file.readline(longest + 2):
        number += 1
        if len(line.rstrip(b"\r\n")) <= longest:
            yield number, line
            continue
        size = len(line)
        while not line.endswith(b"\n") and (line := file.readline(_BLOCK)):
            size += len(line)
        reason = f"a line of {size} bytes; --max_line_bytes is {longest}"
        yield number, Fault("long_line", f"{place}:{number}", reason)


def _plain(file: BinaryIO, place: str, suffix: str, reading: Reading) -> Pieces:
    begin, held, size = 1, [], 0
    for number, line in lines(file, place, reading.max_line_bytes):
        if isinstance(line, Fault):
            yield line
            continue
        blank = not line.strip()
        if not held:
            begin = number
        held.append(line)
        size += len(line)
        ends = {"file": False, "line": True, "paragraph": blank}[reading.documents]
        if ends or size >= LONGEST:
            yield from _document(held, f"{place}:{begin}", reading)
            held, size = [], 0
    if held:
        yield from _document(held, f"{place}:{begin}", reading)


def _document(held: list[bytes], place: str, reading: Reading) -> Pieces:
    content = b"".join(held)
    # Blank lines between documents are no fault.
    if reading.documents == "file" or content.strip():
        yield Text(place, content)


def _json_lines(file: BinaryIO, place: str, suffix: str, reading: Reading) -> Pieces:
    for number, line in lines(file, place, reading.max_line_bytes):
        if isinstance(line, Fault):
            yield line
        elif line.strip():
            yield _json_line(pieces.decode(line), f"{place}:{number}", reading)


def _json_line(line: str, place: str, reading: Reading) -> Text | Fault:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Fault("broken", place, f"not a JSON object on one line: {error}")
    if not isinstance(record, dict):
        reason = f"JSON of type {type(record).__name__} instead of an object with fields"
        return Fault("no_field", place, reason)
    return pieces.of_record(record, reading.field, place)


def _table(file: BinaryIO, place: str, suffix: str, reading: Reading) -> Pieces:
    faults: list[Fault] = []

    def rows() -> Iterator[str]:
        for _, line in lines(file, place, reading.max_line_bytes):
            if isinstance(line, Fault):
                faults.append(line)
            else:
                yield pieces.decode(line)

    # A quote that never ends would swallow the file.
    csv.field_size_limit(reading.max_line_bytes)
    names: list[str] | None = None
    for number, row in tables.parsed(rows(), suffix):
        yield from faults
        faults.clear()
        if isinstance(row, str):
            yield Fault("broken", f"{place}:{number}", f"not a row of a table: {row}")
        elif names is None:
            names = row
            if reading.field not in names:
                yield pieces.of_record(dict.fromkeys(names), reading.field, place)
                return
        else:
            record = dict(zip(names, row, strict=False))
            yield pieces.of_record(record, reading.field, f"{place}:{number}")
    yield from faults


class _Unpacked(io.RawIOBase):
    """The content of a .zst file, frame after frame; PyArrow tells when one is cut short."""

    def __init__(self, path: Path):
        try:
            import pyarrow
        except ImportError as error:
            raise ImportError(
                f"{path} needs PyArrow, which is missing: `pip install pyarrow`, the extra `text`"
            ) from error
        self._stream = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            content = self._stream.read(len(buffer))
        except ValueError as error:  # as PyArrow calls some of what is broken
            raise OSError(error) from error
        buffer[: len(content)] = content
        return len(content)
