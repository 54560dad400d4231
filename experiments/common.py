"""Command line, tables and figures of all experiments."""

import argparse
import pathlib
import statistics
from collections.abc import Sequence

import jax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import perceiver
from benchmarks import measure


def parser(doc: str, name: str, *, seeds: bool = False) -> argparse.ArgumentParser:
    """Returns a parser with the options that experiments share.

    Args:
      doc: the module's docstring.
      name: of the experiment; its runs are kept in runs/NAME, and an interrupted run resumes.
      seeds: whether it is repeated with several seeds.
    """
    found = argparse.ArgumentParser(description=doc)
    found.formatter_class = argparse.RawDescriptionHelpFormatter
    found.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs") / name)
    found.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    if seeds:
        found.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return found


def start(options: argparse.Namespace) -> None:
    """Makes the folder and prints what comes before the tables."""
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.smoke and "seeds" in options:
        options.seeds = options.seeds[:1]
    measure.start(options)


def each(values: Sequence[float], digits: int = 1) -> str:
    """Returns the mean, and every seed's own number in brackets: "92.5 (92.2, 92.7, 92.7)"."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ({', '.join(f'{x:.{digits}f}' for x in values)})" if len(values) > 1 else mean


def parameters(spec: dict) -> int:
    """Returns the number of parameters of a model."""
    params, _ = jax.eval_shape(perceiver.build(spec).init, jax.random.key(0))
    return sum(x.size for x in jax.tree.leaves(params))


def figure(width: float, height: float) -> Figure:
    """Returns a figure that needs no display."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(made: Figure, path: pathlib.Path) -> None:
    """Writes a figure and prints where."""
    made.savefig(path, dpi=110)
    print(f"picture: {path}")
