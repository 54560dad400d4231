"""The page: a table of each part, and one picture of all."""

import pathlib
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.compare import equal_time, lengths, little_data, models
from benchmarks.compare.results import Results, Row
from benchmarks.compare.settings import Settings

PICTURE = "compare.png"

HEADER = """\
# Perceivers beside what people use in their place

Made by `python -m benchmarks.compare`; its modules tell what is measured and how. All systems have
about the same number of parameters (the tables tell), the same inputs (pixels or bytes one by one),
optimiser and schedule, none is tuned by itself. They are small, for two CPU cores: which system is
ahead at this size need not be ahead at another. Equal time is one seed, far from convergence; CPU
time, not wall time, is what is told.

![Accuracy, time and memory](compare.png)
"""


def render(results: Results) -> str:
    """Returns the Markdown page."""
    parts = [HEADER]
    little = results.select(little_data.PART)
    if little:
        parts += ["## Accuracy against the number of training examples", ""]
        parts += [_docstring(little_data), "", *_little(little), ""]
    timed = results.select(equal_time.PART)
    for task, unit in (("digits", "accuracy, %"), ("bytes", "bits per masked byte")):
        rows = [row for row in timed if row["task"] == task]
        if rows:
            seconds = f"{Settings().cpu_seconds:g} CPU seconds"
            parts += [f"## Equal time, {seconds}: {task}, {unit} (steps)", ""]
            parts += [_docstring(equal_time), "", *_equal(rows), ""]
    measured = results.select(lengths.PART)
    if measured:
        parts += ["## A training step: MiB, CPU seconds", "", _docstring(lengths), ""]
        parts += [*_table(measured, "inputs", _cost), ""]
    return "\n".join(parts)


def _docstring(module: Any) -> str:
    return " ".join(module.__doc__.partition("\n\n")[2].split())


def _little(rows: Sequence[Row]) -> list[str]:
    def cell(found: list[Row]) -> str:
        values = [row["accuracy"] for row in found]
        return f"{statistics.mean(values):.1f} ({', '.join(f'{v:.1f}' for v in values)})"

    return _table(rows, "examples", cell)


def _equal(rows: Sequence[Row]) -> list[str]:
    def cell(found: list[Row]) -> str:
        (row,) = found
        return f"{_score(row):.{1 if row['task'] == 'digits' else 2}f} ({row['steps']:,})"

    return _table(rows, "inputs", cell)


def _score(row: Row) -> float:
    return row["accuracy"] if "accuracy" in row else row["bits"]


def _cost(found: list[Row]) -> str:
    (row,) = found
    time = f"{row['cpu_s']:.3g} s" if "cpu_s" in row else "not run"
    return f"{row['temp_mib']:,.1f} MiB, {time}"


def _table(rows: Sequence[Row], field: str, cell: Callable[[list[Row]], str]) -> list[str]:
    columns = sorted({row[field] for row in rows})
    sized = any("parameters" in row for row in rows)
    heads = ["system", *(["parameters"] if sized else []), *(f"{x:,}" for x in columns)]
    lines = [heads, ["---"] * len(heads)]
    for name in _present(rows):
        own = [row for row in rows if row["system"] == name]
        sizes = sorted({row["parameters"] for row in own}) if sized else []
        size = (
            [" to ".join(dict.fromkeys(f"{n:,}" for n in (sizes[0], sizes[-1])))] if sized else []
        )
        cells = [[row for row in own if row[field] == x] for x in columns]
        lines.append([name, *size, *(cell(found) if found else "" for found in cells)])
    return [f"| {' | '.join(line)} |" for line in lines]


def _present(rows: Iterable[Row]) -> list[str]:
    names = {row["system"] for row in rows}
    return [name for name in models.NAMES if name in names]


def draw(results: Results, path: pathlib.Path) -> None:
    """Draws a panel for each part that there are results of."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).ravel()
    timed = results.select(equal_time.PART)
    measured = results.select(lengths.PART)
    panels = (
        (
            results.select(little_data.PART),
            "examples",
            "accuracy",
            "digits to learn from",
            "held-out accuracy, %",
        ),
        (
            [r for r in timed if r["task"] == "digits"],
            "inputs",
            "accuracy",
            "pixels, in equal time",
            "held-out accuracy, %",
        ),
        (
            [r for r in timed if r["task"] == "bytes"],
            "inputs",
            "bits",
            "bytes of a window, in equal time",
            "bits per masked byte",
        ),
        (
            [r for r in measured if "cpu_s" in r],
            "inputs",
            "cpu_s",
            "inputs",
            "CPU seconds of a step, batch 1",
        ),
        (measured, "inputs", "temp_mib", "inputs", "temporary MiB of a step, batch 1"),
    )
    for axis, (rows, x, y, across, up) in zip(axes, panels, strict=False):
        _panel(axis, rows, x, y, logarithmic=y in ("cpu_s", "temp_mib"))
        axis.set_xlabel(across)
        axis.set_ylabel(up)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[5].legend(handles, labels, loc="center", frameon=False)
    axes[5].set_axis_off()
    figure.savefig(path, dpi=100)


def _panel(axis: Any, rows: Sequence[Row], x: str, y: str, *, logarithmic: bool) -> None:
    for name in _present(rows):
        places = sorted({row[x] for row in rows if row["system"] == name})
        by_place = [[r[y] for r in rows if r["system"] == name and r[x] == at] for at in places]
        colour = f"C{models.NAMES.index(name)}"
        means = [statistics.mean(values) for values in by_place]
        axis.plot(places, means, "o-", color=colour, label=name, markersize=3)
        for at, values in zip(places, by_place, strict=True):
            axis.plot([at] * len(values), values, ".", color=colour, markersize=3, alpha=0.4)
    axis.set_xscale("log")
    places = sorted({row[x] for row in rows})
    axis.set_xticks(places, [f"{at:,}" for at in places])
    axis.minorticks_off()
    if logarithmic:
        axis.set_yscale("log")
    axis.grid(alpha=0.2)
