r"""Trains a grid of settings, one after another, and ranks the results.

    python -m train.sweep --config=configs/glue.py:cola --workdir=DIR \
        --grid optim.lr=1e-4,5e-5 data.batch_size=16,32 [--config.FIELD=VALUE ...]
    python -m train.sweep --table DIR [DIR ...]

Each point is a separate run in DIR/lr=1e-4,batch_size=16, evaluated at its end as by
`python -m train.evaluate`. DIR/results.md is a table of all points, the best first; it is rewritten
after each point. Run the same command to resume an interrupted sweep: finished points are skipped,
and the current one resumes from its last checkpoint. A point whose loss becomes infinite is listed
in the table and does not end the sweep.

--table collects the best points of several sweeps, such as GLUE's tasks, with their mean.
"""

import argparse
import dataclasses
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from train import command, evaluate, loop
from train.guard import exit_codes
from train.guard.broken_examples import BrokenExamples
from train.guard.preemption import Preempted
from train.report import sweep_table
from train.run import trained_model
from train.run.window import NonFiniteError


@dataclasses.dataclass(frozen=True)
class Point:
    """Settings of one run: ("optim.lr", "1e-4"), ..."""

    settings: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Name of its folder: the last words of the fields, or all where these are the same."""
        fields = [field for field, _ in self.settings]
        short = [field.rpartition(".")[2] for field in fields]
        shown = short if len(set(short)) == len(short) else fields
        pairs = zip(shown, self.settings, strict=True)
        parts = [f"{name}={value}" for name, (_, value) in pairs]
        return ",".join(parts).replace("/", "_") or "run"

    @property
    def arguments(self) -> list[str]:
        """Of a command line."""
        return [f"--config.{field}={value}" for field, value in self.settings]


def points(grid: Sequence[str]) -> list[Point]:
    """Returns all combinations of ["optim.lr=1e-4,5e-5", ...], the last field varying first.

    Raises:
      ValueError: no such form, a field or a value twice.
    """
    axes = []
    for axis in grid:
        field, equals, values = axis.partition("=")
        choices = values.split(",")
        if not (field and equals and all(choices)):
            raise ValueError(
                f"--grid {axis!r}: write FIELD=VALUE,VALUE, such as optim.lr=1e-4,5e-5"
            )
        if len(set(choices)) < len(choices):
            raise ValueError(f"--grid {axis!r} has a value twice")
        axes.append([(field, value) for value in choices])
    fields = [axis[0][0] for axis in axes]
    if len(set(fields)) < len(fields):
        raise ValueError(f"--grid has a field more than once: {', '.join(fields)}")
    return [Point(settings) for settings in itertools.product(*axes)]


def sweep(
    arguments: Sequence[str],
    grid: Sequence[str],
    folder: pathlib.Path,
    *,
    metric: str = "score",
    log: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Runs all points that are not done; returns the rows of the table, the best first.

    Args:
      arguments: `--config=FILE:VARIANT` and `--config.FIELD=VALUE`, of all points.
      grid: see `points`.
      folder: of the sweep.
      metric: of the evaluation, by which points are ordered: higher is better, but for a loss.
      log: takes a line for each point.

    Raises:
      ValueError, FileNotFoundError: a setting that cannot work, found before the first run; or a
        folder of another sweep.
    """
    todo = points(grid)
    configs = [command.read([*arguments, *point.arguments]) for point in todo]
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (point, config) in enumerate(zip(todo, configs, strict=True), start=1):
        where, progress = folder / point.name, f"{number} of {len(todo)}, {point.name}"
        row = _done(where, point, config)
        if row is None:
            log(f"{progress}: training")
            row = _run(config, where, point)
            _write(where / sweep_table.RESULT, json.dumps(row, indent=2) + "\n")
        _check_metric(row, metric)
        rows.append(row)
        value = row["scores"].get(metric)
        outcome = row["failure"] if value is None else f"{metric} {value:.4f}"
        log(f"{progress}: {outcome}")
        _write(folder / sweep_table.TABLE, sweep_table.of_points(rows, metric))
    return sweep_table.in_order(rows, metric)


def _run(config: Any, folder: pathlib.Path, point: Point) -> dict[str, Any]:
    """Trains and evaluates one point."""
    row = {
        "name": point.name,
        "settings": dict(point.settings),
        "config": config.to_dict(),
        "failure": "",
        "scores": {},
    }
    try:
        loop.run(config, folder)
    except NonFiniteError as error:
        return json.loads(json.dumps(row | {"failure": str(error).partition(";")[0]}))
    scores, _ = evaluate.assess(trained_model.from_run(folder), None, BrokenExamples(print))
    row["scores"] = {name: float(x) for name, x in scores.items() if math.isfinite(x)}
    return json.loads(json.dumps(row))


def _done(folder: pathlib.Path, point: Point, config: Any) -> dict[str, Any] | None:
    """Returns the result that is there, if it is of the same settings."""
    file = folder / sweep_table.RESULT
    if not file.is_file():
        return None
    row = json.loads(file.read_text())
    if row["config"] != json.loads(json.dumps(config.to_dict())):
        raise ValueError(
            f"{folder} holds the result of another config; choose a new --workdir, or restore "
            "its settings"
        )
    return row


def _check_metric(row: dict[str, Any], metric: str) -> None:
    if row["scores"] and metric not in row["scores"]:
        known = ", ".join(row["scores"])
        raise ValueError(f"--metric={metric}: the evaluation of this task reports {known}")


def _write(path: pathlib.Path, text: str) -> None:
    """Replaces a file at once: a kill leaves the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def main(words: Sequence[str] | None = None) -> None:
    """Sweeps, or puts sweeps into one table."""
    parser = argparse.ArgumentParser(
        prog="python -m train.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE:VARIANT")
    parser.add_argument("--grid", nargs="+", default=[], metavar="FIELD=VALUE,VALUE")
    parser.add_argument("--workdir", type=pathlib.Path, help="folder of the sweep")
    parser.add_argument(
        "--metric", default="score", help="metric of the evaluation to rank by (default: score)"
    )
    parser.add_argument("--table", nargs="+", type=pathlib.Path, metavar="DIR")
    arguments, changes = parser.parse_known_args(words)
    unknown = [word for word in changes if not word.startswith("--config.")]
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    try:
        if arguments.table:
            print(sweep_table.of_sweeps(arguments.table, arguments.metric), end="")
            return
        if arguments.config is None or arguments.workdir is None:
            parser.error("give --config and --workdir, or --table")
        about = [f"--config={arguments.config}", *changes]
        sweep(about, arguments.grid, arguments.workdir, metric=arguments.metric)
    except Preempted as told:
        print(f"\n{told}", file=sys.stderr)
        sys.exit(exit_codes.STOPPED if told.by_hand else exit_codes.PREEMPTED)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"\n{type(error).__name__}: {error}")
    print((arguments.workdir / sweep_table.TABLE).read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
