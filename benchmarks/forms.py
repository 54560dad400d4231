"""One block of rows: the same work in several forms, on the same arguments, against the dense."""

import argparse
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from benchmarks import measure, table


class Form(NamedTuple):
    """A way to compute the same function."""

    name: str
    dtype: str = "float32"  # of the operands of matrix products


DENSE = Form("dense")
Contenders = Mapping[Form, tuple[Callable, tuple]]  # form -> function, arguments


def compare(
    contenders: Contenders,
    *,
    gflop: Callable[[str], float],
    options: argparse.Namespace,
    weigh_only: bool = False,
    **labels,
) -> list[table.Row]:
    """Compiles all forms, runs those whose memory allows it, and returns a row for each.

    Args:
      contenders: `DENSE`, if among them, is what ratios and errors refer to.
      gflop: name of a form, or "least" -> operations on paper.
      options: `rounds`, and `memory`: GiB of temporary memory that a program may need to be run.
      weigh_only: compile all and run none.
      **labels: fields that all rows share: `case`, `work`, ...
    """
    programs = {
        form: measure.compile_program(function, *arguments)
        for form, (function, arguments) in contenders.items()
    }
    limit = 1024 * options.memory
    runnable = {form: p for form, p in programs.items() if p.temp_mib <= limit and not weigh_only}
    timings = measure.race(runnable, options.rounds)
    rows = []
    for form, program in programs.items():
        found = {}
        if DENSE in programs and form != DENSE:
            found["temp_ratio"] = programs[DENSE].temp_mib / max(program.temp_mib, 1e-3)
        if form in timings:
            found |= timed(timings[form], timings.get(DENSE) if form != DENSE else None)
        elif not weigh_only:
            found["note"] = f"not run: over {options.memory:g} GiB"
        row = table.Row(
            form=form.name,
            dtype=form.dtype,
            temp_mib=program.temp_mib,
            gflop=gflop(form.name),
            floor_gflop=gflop("least"),
            **labels,
            **found,
        )
        rows.append(row)
    return rows


def timed(timing: measure.Timing, dense: measure.Timing | None) -> dict[str, float]:
    """Returns a row's fields of time, with ratios and error against the dense form if it ran."""
    found = {"wall_s": timing.wall, "cpu_s": timing.cpu}
    if dense is None:
        return found
    found["wall_ratio"] = measure.median_ratio(dense.walls, timing.walls)
    found["cpu_ratio"] = measure.median_ratio(dense.cpus, timing.cpus)
    # Gradients of stacked and of unstacked parameters are not the same tree.
    if jax.tree.structure(timing.result) == jax.tree.structure(dense.result):
        found["error"] = measure.relative_error(timing.result, dense.result)
    return found
