"""Rows of results: printed as a table, written as JSON with the machine and the versions."""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import haiku as hk
import jax
import jaxlib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement; None is what was not measured. Ratios are dense / this form."""

    case: str  # "ImageNet, batch 2"
    work: str  # "forward", "gradient", ...
    form: str  # "dense", a path, a remat policy, ...
    dtype: str = "float32"  # "bfloat16": operands of matrix products only
    inputs: int | None = None  # M, where a benchmark varies it
    wall_s: float | None = None
    cpu_s: float | None = None
    images_per_core_s: float | None = None  # by wall time
    clips_per_core_s: float | None = None
    share: float | None = None  # of the wall time of all parts
    wall_ratio: float | None = None
    cpu_ratio: float | None = None
    temp_mib: float | None = None
    temp_ratio: float | None = None
    resident_mib: float | None = None  # most memory of a process that does only this
    resident_ratio: float | None = None
    state_mib: float | None = None  # of each device: parameters, moments, average
    gathered_mib: float | None = None  # see `collectives`, these and the following
    reduced_mib: float | None = None
    other_mib: float | None = None
    sent_mib: float | None = None
    theory_mib: float | None = None
    theory_ratio: float | None = None  # sent / theory
    least_mib: float | None = None
    compile_s: float | None = None
    gflop: float | None = None  # counted on paper for this form, see `floor`
    floor_gflop: float | None = None  # the same of the form that needs least
    error: float | None = None  # relative to dense, see `measure.relative_error`
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields that say something."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v not in (None, "")}


# field -> (heading, format)
COLUMNS = {
    "case": ("case", "{}"),
    "work": ("work", "{}"),
    "form": ("form", "{}"),
    "dtype": ("operands", "{}"),
    "inputs": ("M", "{:,}"),
    "wall_s": ("wall s", "{:.3g}"),
    "cpu_s": ("CPU s", "{:.3g}"),
    "images_per_core_s": ("images/s per core", "{:,.0f}"),
    "clips_per_core_s": ("clips/s per core", "{:,.1f}"),
    "share": ("share", "{:.1%}"),
    "wall_ratio": ("wall x", "{:.2f}"),
    "cpu_ratio": ("CPU x", "{:.2f}"),
    "state_mib": ("state MiB", "{:,.0f}"),
    "temp_mib": ("temp MiB", "{:,.1f}"),
    "temp_ratio": ("temp x", "{:.1f}"),
    "resident_mib": ("peak MiB", "{:,.0f}"),
    "resident_ratio": ("peak x", "{:.2f}"),
    "gathered_mib": ("gathered MiB", "{:,.1f}"),
    "reduced_mib": ("reduced MiB", "{:,.1f}"),
    "other_mib": ("other MiB", "{:,.1f}"),
    "sent_mib": ("sent MiB", "{:,.1f}"),
    "theory_mib": ("theory", "{:,.1f}"),
    "theory_ratio": ("sent / theory", "{:.3f}"),
    "least_mib": ("least", "{:,.1f}"),
    "compile_s": ("compile s", "{:.1f}"),
    "gflop": ("GFLOP", "{:.3g}"),
    "floor_gflop": ("floor", "{:.3g}"),
    "error": ("rel. error", "{:.0e}"),
    "note": ("note", "{}"),
}


def cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Returns (headings, cells) of the columns that some row fills."""
    used = [field for field in COLUMNS if any(field in row for row in rows)]
    heads = [COLUMNS[field][0] for field in used]
    body = [
        [COLUMNS[field][1].format(row[field]) if field in row else "" for field in used]
        for row in rows
    ]
    return heads, body


def environment() -> dict[str, Any]:
    """Returns what a figure depends on beside the code."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind if device.platform != "cpu" else platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "haiku": hk.__version__,
    }


def describe(env: dict[str, Any]) -> str:
    """Returns one line for people."""
    return (
        f"{env['cores']} CPU cores, platform {env['platform']} ({env['device']}), Python "
        f"{env['python']}, jax {env['jax']}, jaxlib {env['jaxlib']}, haiku {env['haiku']}"
    )


class Report:
    """Prints rows as they come, and keeps them for the JSON file."""

    def __init__(self, options: argparse.Namespace):
        """Starts the table: `options` are those of `parser`."""
        self.options = options
        self.rows: list[dict[str, Any]] = []
        print(describe(environment()))
        print("parameters, softmax and sums float32; ratios are dense / form, medians of rounds")
        if options.smoke:
            print("smoke: tiny sizes, the figures mean nothing")

    def add(self, *rows: Row) -> None:
        """Prints a block of rows and keeps it."""
        block = [row.to_dict() for row in rows]
        self.rows.extend(block)
        heads, body = cells(block)
        widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
        print()
        for line in [heads, *body]:
            print("  ".join(_align(c, w) for c, w in zip(line, widths, strict=True)).rstrip())
        sys.stdout.flush()

    def write(self, benchmark: str) -> None:
        """Writes `--json FILE`, if asked for."""
        if self.options.json is None:
            return
        settings = {k: v for k, v in vars(self.options).items() if k not in ("json", "png")}
        found = {
            "benchmark": benchmark,
            "command": _command(benchmark),
            "environment": environment(),
            "settings": settings,
            "rows": self.rows,
        }
        self.options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _command(benchmark: str) -> str:
    """What was typed, without the paths of this machine."""
    paths, words, skip = ("--json", "--png", "--peer-python"), [], False
    for word in sys.argv[1:]:
        if not skip and word not in paths:
            words.append(word)
        skip = word in paths
    return " ".join([f"python -m benchmarks.{benchmark}", *words])


def _align(cell: str, width: int) -> str:
    number = cell[:1].isdigit()
    return cell.rjust(width) if number else cell.ljust(width)


def parser(doc: str, *, rounds: int = 3, prog: str | None = None) -> argparse.ArgumentParser:
    """Returns a parser with the options that most benchmarks take; packages tell their `prog`."""
    found = argparse.ArgumentParser(prog=prog, description=doc)
    found.formatter_class = argparse.RawDescriptionHelpFormatter
    found.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the rows there")
    found.add_argument("--smoke", action="store_true", help="tiny sizes: does it run?")
    found.add_argument("--rounds", type=int, default=rounds, help="of which the median counts")
    return found


def chosen(names: Iterable[str], asked: Sequence[str]) -> list[str]:
    """Returns the names that were asked for, or all.

    Raises:
      ValueError: an unknown name.
    """
    names = list(names)
    if wrong := [name for name in asked if name not in names]:
        raise ValueError(f"unknown {', '.join(wrong)}; choose from {', '.join(names)}")
    return [name for name in names if not asked or name in asked]
