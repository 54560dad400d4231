"""The record of a run: `metrics.jsonl`, one strict JSON object a line, each with its `step`.

A run may be killed at any moment and go on from an older checkpoint. So a line reaches the
operating system in a single write, and a run that resumes first removes what its previous process
wrote beyond the checkpoint: the file always tells one story, each step once.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# What rows tell of time and memory: the only numbers that a run and its repetition do not share.
SPEEDS = (
    "steps_per_second",
    "examples_per_second",
    "step_seconds",
    "data_wait",
    "tflops_per_device",
    "mfu",
    "host_memory_gib",
    "device_memory_gib",
)


class MetricsLog:
    """Appends rows to a file, after cutting it back to the step that the run resumes at."""

    def __init__(self, path: str | os.PathLike[str], *, start_step: int = 0):
        self._path = Path(path)
        self._start_step = start_step
        # Keys kept at start_step: the run saves there and may well evaluate there a second time.
        self._told: set[str] = set()
        self.dropped = self._truncate()  # lines removed: beyond start_step, or unreadable
        # Unbuffered: a line handed over survives the process, however it ends.
        self._file = self._path.open("ab", buffering=0)

    def append(self, row: Mapping[str, float]) -> None:
        """Writes one row: an int `step` and any numbers, of which NaN and infinities become null.

        A row that the file already holds from before the run was resumed is not written twice.
        """
        if row["step"] == self._start_step and row.keys() <= self._told:
            return
        plain = {name: _plain(value) for name, value in row.items()} | {"step": int(row["step"])}
        self._file.write(json.dumps(plain, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Closes the file; nothing was waiting to be written."""
        self._file.close()

    def _truncate(self) -> int:
        if not self._path.exists():
            return 0
        data = self._path.read_bytes()
        lines = data.splitlines()
        kept = []
        for line in lines:
            row = _parse(line)
            if row is not None and row["step"] <= self._start_step:
                kept.append(line)
                if row["step"] == self._start_step:
                    self._told |= row.keys()
        rest = b"".join(line + b"\n" for line in kept)
        if rest != data:
            _replace(self._path, rest)
        return len(lines) - len(kept)


def read(path: str | os.PathLike[str]) -> list[Row]:
    """Reads the rows of a journal, of a run that is over, going on or killed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is not a row. The last one may be: it was half written.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the metrics.jsonl of a run")
    lines = path.read_bytes().splitlines()
    rows = [_parse(line) for line in lines]
    if rows and rows[-1] is None:
        rows.pop()
    for number, row in enumerate(rows, start=1):
        if row is None:
            raise ValueError(
                f"{path}, line {number} is not a JSON object with a step: "
                f"{lines[number - 1][:80]!r}; delete that line"
            )
    return rows


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # bad JSON and bad UTF-8 alike
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    # JSON has integers of any length, floating-point numbers have not.
    return None if any(isinstance(x, int) and abs(x) >= 2**63 for x in row.values()) else row


def _plain(value: float) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


def _replace(path: Path, data: bytes) -> None:
    """Replaces a file's content at once: a reader, or a crash, sees the old or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
