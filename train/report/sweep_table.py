"""Markdown tables of sweeps: the points of one, or the best points of several."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

RESULT, TABLE = "result.json", "results.md"  # of a point, of a sweep

Row = dict[str, Any]


def in_order(rows: Sequence[Row], metric: str) -> list[Row]:
    """Returns the rows, the best first; losses from below, all else from above; failures last."""
    sign = 1 if metric.rpartition("/")[2] == "loss" else -1
    done = [row for row in rows if metric in row["scores"]]
    failed = [row for row in rows if metric not in row["scores"]]
    return sorted(done, key=lambda row: sign * row["scores"][metric]) + failed


def of_points(rows: Sequence[Row], metric: str) -> str:
    """Returns a table with a line for each point: settings, the metric, the other scores."""
    rows = in_order(rows, metric)
    fields = list(rows[0]["settings"])
    others = [name for row in rows for name in row["scores"] if name != metric]
    others = list(dict.fromkeys(others))
    lines = [[*fields, metric, *others, ""]]
    for row in rows:
        scores = [_number(row["scores"].get(name)) for name in (metric, *others)]
        lines.append([*(row["settings"][field] for field in fields), *scores, row["failure"]])
    if not any(row["failure"] for row in rows):
        lines = [line[:-1] for line in lines]
    return _markdown(lines)


def of_sweeps(folders: Sequence[pathlib.Path], metric: str) -> str:
    """Returns a table with the best point of each sweep, in percent, and the mean of all.

    Raises:
      FileNotFoundError: a folder without a point that is done.
    """
    lines, scores = [["sweep", f"{metric}, %", "best point", "points"]], []
    for folder in folders:
        files = sorted(folder.glob(f"*/{RESULT}"))
        rows = in_order([json.loads(file.read_text()) for file in files], metric)
        if not rows or metric not in rows[0]["scores"]:
            raise FileNotFoundError(
                f"{folder} has no finished sweep point with the metric {metric!r}; give the "
                "--workdir of a `python -m train.sweep` command"
            )
        scores.append(rows[0]["scores"][metric])
        lines.append([folder.name, f"{100 * scores[-1]:.2f}", rows[0]["name"], str(len(rows))])
    if len(scores) > 1:
        lines.append(["mean", f"{100 * np.mean(scores):.2f}", "", ""])
    return _markdown(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *body = (
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *body]) + "\n"
