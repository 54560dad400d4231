"""Writes text stores document by document, and the report of what was left out."""

import collections
import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from data.prepare.text.pieces import Fault, Text
from data.text import text_store

INVALID = ("replace", "drop", "error")  # what becomes of a document that is not UTF-8
_MOST_TOLD = 10_000  # rows of a report for each kind of fault; more are only counted
_SHOWN = 100  # characters of a place in an error
_WHITE = (b" ", b"\t", b"\n", b"\r", b"\v", b"\f")


class StoreWriter:
    """Adds documents to a new store; nothing but the files' buffers is held."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self.folder = folder
        self.documents = 0
        self.bytes = 0
        self._bytes = (folder / text_store.BYTES).open("wb", buffering=2**20)
        self._starts = (folder / text_store.DOCUMENTS).open("wb", buffering=2**16)
        self._write_header()
        self._write_start()

    def add(self, content: bytes) -> None:
        """Adds a document, with a line break if it does not end in white space."""
        if not content.endswith(_WHITE):
            content += b"\n"
        self._bytes.write(content)
        self.bytes += len(content)
        self.documents += 1
        self._write_start()

    def close(self, settings: dict[str, Any], report: "FaultReport") -> None:
        """Completes the files and has the system write them to disk."""
        self._starts.seek(0)
        self._write_header()
        for file in (self._bytes, self._starts):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        summary = {"documents": self.documents, "bytes": self.bytes, "left_out": report.totals()}
        text = json.dumps(settings | summary, indent=2, ensure_ascii=False)
        (self.folder / text_store.SETTINGS).write_text(text + "\n", encoding="utf-8")
        report.write(self.folder / text_store.REPORT)

    def abandon(self) -> None:
        """Closes the files of a store that will not be."""
        self._bytes.close()
        self._starts.close()

    def _write_header(self) -> None:
        # numpy leaves room for the length to grow, so that the header keeps its own length.
        shape = (self.documents + 1,)
        header = {"descr": "<i8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._starts, header)

    def _write_start(self) -> None:
        self._starts.write(self.bytes.to_bytes(8, "little"))


class FaultReport:
    """Faults by kind: all counted, the first of each told."""

    def __init__(self, *, strict: bool = False):
        self._strict = strict
        self._told: list[tuple[str, str, str]] = []
        self._counts: collections.Counter[str] = collections.Counter()

    def add(self, fault: Fault) -> None:
        """Counts a fault.

        Raises:
          ValueError: faults are errors.
        """
        if self._strict:
            raise ValueError(
                f"{fault.place}: {fault.reason}. Repair it, or omit --strict to skip unusable input"
            )
        self._counts[fault.kind] += 1
        if self._counts[fault.kind] <= _MOST_TOLD:
            self._told.append((fault.kind, fault.place, fault.reason))

    def totals(self) -> dict[str, int]:
        """Returns kind -> how many, in the order of the names."""
        return dict(sorted(self._counts.items()))

    def first(self) -> str:
        """Returns the first fault as a sentence's end; empty without one."""
        if not self._told:
            return ""
        _, place, reason = self._told[0]
        return f"; the first fault: {place[-_SHOWN:]}: {reason}"

    def write(self, path: Path) -> None:
        """Writes kind, place and reason as a table."""
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("kind", "place", "reason"))
            table.writerows(self._told)


def clean(text: Text, invalid: str, report: FaultReport) -> bytes | None:
    """Returns a document as valid UTF-8 with something in it; None if it is left out.

    Args:
      text: the document.
      invalid: one of INVALID.
      report: where faults go.

    Raises:
      ValueError: it is no UTF-8, and that is an error.
    """
    if not text.content.strip():
        report.add(Fault("empty", text.place, "only white space"))
        return None
    try:
        text.content.decode()
    except UnicodeDecodeError as error:
        reason = f"not UTF-8: byte {text.content[error.start]:#04x} at {error.start}"
        if invalid == "error":
            raise ValueError(
                f"{text.place}: {reason}. Repair it, or choose --invalid replace or drop"
            ) from None
        done = "replaced by U+FFFD" if invalid == "replace" else "skipped"
        report.add(Fault("invalid", text.place, f"{reason}; {done}"))
        return text.content.decode(errors="replace").encode() if invalid == "replace" else None
    return text.content
