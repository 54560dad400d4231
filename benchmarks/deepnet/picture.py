"""The picture of `benchmarks.deepnet`: curves, updates and memory against depth."""

import pathlib
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from perceiver.processor import REMAT

COLOURS = {"deepnorm": "#1f6fb4", "post_norm": "#d9541e", "pre_norm": "#2e8b57"}
_REMAT_COLOURS = ("#8a4fbf", "#8c6d31", "#1f6fb4", "#777777")

Rows = list[dict[str, Any]]


def draw(found: dict[str, Rows], path: pathlib.Path) -> None:
    """Draws three panels; one whose part was not run stays empty."""
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    for axes, (part, panel) in zip(panels, _PANELS.items(), strict=True):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if found.get(part):
            panel(axes, found[part])
            axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def _training(axes: Axes, rows: Rows) -> None:
    """Of the Transformer: training thin, held-out with dots; a cross where a run broke off."""
    rows = [row for row in rows if row["model"] == "transformer"]
    for row in rows:
        colour, label = COLOURS[row["residual"]], f"{row['residual']}, lr {row['rate']:g}"
        style = "-" if row["rate"] == max(other["rate"] for other in rows) else ":"
        axes.plot(*_points(row["curve"]), style, color=colour, linewidth=0.9, alpha=0.6)
        axes.plot(*_points(row["held_out"]), f"o{style}", color=colour, label=label, markersize=5)
        if row["diverged"] and row["curve"]:
            axes.plot(*row["curve"][-1], "x", color=colour, markersize=12)
    if unigrams := [row["unigram"] for row in rows if row["unigram"] is not None]:
        axes.axhline(unigrams[0], color="#777777", linestyle="--", label="unigram, held out")
    axes.set(xlabel="step", ylabel="bits per masked byte", ylim=(4, 7))  # the first steps are alike
    axes.set_title(f"{max(row['layers'] for row in rows):,} layers (dots: held out)")


def _points(curve: list[list[float]]) -> tuple[list[float], list[float]]:
    return [step for step, _ in curve], [value for _, value in curve]


def _update(axes: Axes, rows: Rows) -> None:
    """Of one step of gradient descent: weights and their bound, and what norms learn."""
    for residual in dict.fromkeys(row["residual"] for row in rows):
        own, colour = [row for row in rows if row["residual"] == residual], COLOURS[residual]
        depths = [row["layers"] for row in own]
        for kind, style in (("weights", "o-"), ("norms", "s:")):
            sizes = [row["descent"][kind] for row in own]
            axes.loglog(depths, sizes, style, color=colour, label=f"{residual}, {kind}")
        bounds = [row["descent_bound"] for row in own]
        axes.loglog(depths, bounds, "--", color=colour, linewidth=0.8, label=f"{residual}, bound")
    axes.set(xlabel="layers", ylabel="change of the features, root mean square")
    axes.set_title("one step of descent (bound: theorem 4.2, for weights)")


def _memory(axes: Axes, rows: Rows) -> None:
    for remat, colour in zip(REMAT, _REMAT_COLOURS, strict=True):
        if not any(row["remat"] == remat for row in rows):
            continue
        own = [row for row in rows if row["remat"] == remat]
        sizes = [row["temporary"] / 2**20 for row in own]
        axes.loglog([r["layers"] for r in own], sizes, "o-", color=colour, label=f"remat {remat}")
    axes.set(xlabel="layers", ylabel="temporary memory of a gradient, MiB")
    axes.set_title("memory beside parameters and gradients")


_PANELS = {"training": _training, "update": _update, "memory": _memory}
