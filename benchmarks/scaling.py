"""Memory and time of a cross-attend from a thousand to a million inputs, dense against ours.

    python -m benchmarks.scaling [--json FILE] [--png benchmarks/scaling.png] [--smoke]
    python -m benchmarks.scaling --resident forward|gradient

A square image of M pixels, C = 261, N = 512 latents of 1024 channels, batch 1. The dense form runs
where its temporary memory is at most `--memory` GiB and is weighed wherever the compiler takes it.
`--resident` does one thing once, at a million inputs, and prints the most memory that its process
ever held: what is left when Python, JAX, compilation, arguments and results are counted too.
"""

import argparse
import dataclasses
import json
import pathlib

import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import blocks, floor, measure, shapes, table
from benchmarks.forms import DENSE, Form, compare

SIDES = (32, 64, 128, 256, 512, 1000)
TINY_SIDES = (5, 37)
WORKS = blocks.WORKS[:2]
OURS = Form("auto")
PICTURE = pathlib.Path(__file__).with_name("scaling.png")
LABELS = {"temp_mib": "temporary memory, MiB", "wall_s": "wall time, s"}  # panels, row by row
STYLES = {"dense": ("#d9541e", "o"), "auto": ("#1f6fb4", "s")}  # form -> colour, marker


def arrays(shape: shapes.Shape) -> tuple:
    """Returns (params, latents, byte array, cotangent) for one example."""
    latents, byte_array = shape.latents(1), shape.byte_array(1)
    params = blocks.draw_params("encoder", latents, byte_array)
    cotangent = np.random.default_rng(3).standard_normal(latents.shape, np.float32)
    return params, latents, byte_array, jnp.asarray(cotangent)


def measure_side(side: int, options: argparse.Namespace) -> list[table.Row]:
    """Returns the rows of one number of inputs."""
    shape = _shape(side, options)
    arguments, rows = arrays(shape), []
    for work in WORKS:
        blocks_of = {form: blocks.make("encoder", form) for form in (DENSE, OURS)}
        rows += compare(
            {form: (blocks.working(f, work), arguments) for form, f in blocks_of.items()},
            case="pixels",
            inputs=shape.size,
            work=work,
            gflop=lambda form, work=work: (
                floor.least(shape, work)
                if form == "least"
                else floor.cross_attend(shape, form, work)
            ),
            options=options,
        )
    return rows


def resident(work: str, options: argparse.Namespace) -> float:
    """Does one work on a million inputs and returns the peak MiB of this process."""
    function = blocks.working(blocks.make("encoder", OURS), work)
    measure.compile_program(function, *arrays(_largest(options)))()
    return measure.peak_resident_mib()


def resident_row(work: str, options: argparse.Namespace) -> table.Row:
    """Starts `--resident` in a process of its own."""
    words = ["--resident", work] + (["--smoke"] if options.smoke else [])
    found = measure.in_fresh_process("benchmarks.scaling", *words)
    size = _largest(options).size
    return table.Row(case="pixels, own process", work=work, form=OURS.name, inputs=size, **found)


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Draws temporary memory and wall time against M, both axes logarithmic."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(WORKS), sharex=True, sharey="row")
    for line, (field, label) in zip(panels, LABELS.items(), strict=True):
        for axes, work in zip(line, WORKS, strict=True):
            for form, (colour, marker) in STYLES.items():
                points = [
                    (row["inputs"], row[field])
                    for row in rows
                    if (row["work"], row["form"]) == (work, form) and field in row
                ]
                name = "dense" if form == "dense" else "this project"
                axes.loglog(*zip(*points, strict=True), color=colour, marker=marker, label=name)
            axes.grid(alpha=0.3)
        line[0].set_ylabel(label)
    for top, bottom, work in zip(*panels, WORKS, strict=True):
        top.set_title(work)
        bottom.set_xlabel("inputs M")
    panels[0][0].legend()
    figure.savefig(path, dpi=120)


def _largest(options: argparse.Namespace) -> shapes.Shape:
    return _shape((TINY_SIDES if options.smoke else SIDES)[-1], options)


def _shape(side: int, options: argparse.Namespace) -> shapes.Shape:
    shape = shapes.pixels(side)
    return dataclasses.replace(shape, queries=67) if options.smoke else shape


def main() -> None:
    """Prints a block of rows per size, then the peaks, and draws the picture."""
    parser = table.parser(__doc__)
    parser.add_argument("--memory", type=float, default=4, help="GiB that a program may take")
    parser.add_argument("--png", type=pathlib.Path, metavar="FILE", help=f"default {PICTURE.name}")
    parser.add_argument("--resident", choices=WORKS, help="one work in this process, then its peak")
    options = parser.parse_args()
    if options.resident:
        print(json.dumps({"resident_mib": resident(options.resident, options)}))
        return
    report = table.Report(options)
    for side in TINY_SIDES if options.smoke else SIDES:
        report.add(*measure_side(side, options))
    report.add(*(resident_row(work, options) for work in WORKS))
    report.write("scaling")
    if path := options.png or (None if options.smoke else PICTURE):
        draw(report.rows, path)
        print(f"\nwrote {path}")


if __name__ == "__main__":
    main()
