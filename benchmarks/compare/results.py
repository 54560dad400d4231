"""Results in a file, a line of JSON for each: what is there already is not measured again."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]  # the key's fields and what was measured


class Results:
    """The rows of a folder."""

    def __init__(self, folder: pathlib.Path, say: Callable[[str], None] = print):
        folder.mkdir(parents=True, exist_ok=True)
        self._file, self._say = folder / "results.jsonl", say
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]

    def measure(self, measure: Callable[[], Row], **key: Any) -> Row:
        """Returns the row of a key, from the file or measured now."""
        for row in self.rows:
            if key.items() <= row.items():
                return row
        row = key | measure()
        with self._file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        self._say("  ".join(f"{name} {_short(value)}" for name, value in row.items()))
        return row

    def select(self, part: str) -> list[Row]:
        """Returns the rows of a part of the benchmark."""
        return [row for row in self.rows if row["part"] == part]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
