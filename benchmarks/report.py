"""Renders the JSON files of the benchmarks as `RESULTS.md`, so that no figure is typed by hand.

    python -m benchmarks.report FILE.json ... [--out benchmarks/RESULTS.md]

Without any file every figure says "not measured". Of two files with the same row, the later counts.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from benchmarks import table
from benchmarks.targets import TARGETS, Target, show

OUT = pathlib.Path(__file__).with_name("RESULTS.md")
Run = dict[str, Any]  # what `table.Report.write` writes

HEADER = """# Results

Written by `python -m benchmarks.report`; do not edit by hand. The dense form is DeepMind's formulas
(`benchmarks/dense.py`) on the same parameters. A ratio is dense / ours, the median over rounds in
which both ran one after the other; temporary memory is the compiler's account of what a program
allocates beside arguments and results; GFLOP are counted on paper (`benchmarks/floor.py`).
"""


def read(path: pathlib.Path) -> Run:
    """Reads the file of one run.

    Raises:
      ValueError: it is of a smoke run, or of something else.
    """
    run = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(run, dict) or not {"benchmark", "environment", "rows"} <= run.keys():
        raise ValueError(f"{path} was not written by a benchmark's --json")
    if run["settings"]["smoke"]:
        raise ValueError(f"{path} is of a --smoke run, whose figures mean nothing; run it without")
    return run


def render(runs: Sequence[Run]) -> str:
    """Returns the whole Markdown document."""
    machines = dict.fromkeys(table.describe(run["environment"]) for run in runs)
    parts = [HEADER, *(f"Machine: {machine}.\n" for machine in machines)]
    parts += ["## Targets\n", _targets(runs)]
    for run in runs:
        heads, body = table.cells(run["rows"])
        parts += [f"## {run['benchmark']}\n", f"`{run['command']}`\n", _markdown(heads, body)]
    return "\n".join(parts)


def _targets(runs: Sequence[Run]) -> str:
    heads = ["item", "target", "measured", "", "command", "remark"]
    return _markdown(heads, [_line(target, runs) for target in TARGETS])


def _line(target: Target, runs: Sequence[Run]) -> list[str]:
    measured, verdict, command = "not measured", "", f"`python -m benchmarks.{target.benchmark}`"
    for run in runs:
        for row in run["rows"]:
            if target.finds(run["benchmark"], row):
                measured = _measured(target, row)
                verdict = "met" if target.is_met(row[target.field]) else "**missed**"
                command = f"`{run['command']}`"
    return [target.item, target.text, measured, verdict, command, target.remark]


def _measured(target: Target, row: dict[str, Any]) -> str:
    found = show(target.field, row[target.field])
    if target.field == "cpu_ratio":
        found += f" (wall time {show('wall_ratio', row['wall_ratio'])})"
    return f"{found}, {row['note']}" if "note" in row else found


def _markdown(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Writes the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="*", type=pathlib.Path, metavar="FILE.json")
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    options = parser.parse_args()
    options.out.write_text(render([read(path) for path in options.files]), encoding="utf-8")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
