"""A picture of what a classifier takes for what, and of how sure it is when it is right."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from train.objective.class_metrics import BINS, Calibration, Confusions
from train.report.names import drawn

NAMED = 30  # classes; more have no room for their names
WORST = 20  # pairs that are listed instead
CELLS = 250  # of the matrix; more classes share them, as single ones would not be seen


def draw(
    path: Path, confusions: Confusions, calibration: Calibration, names: Sequence[str]
) -> Path:
    """Draws the confusion matrix, in parts of each true class, beside the reliability diagram.

    With many classes the matrix has no names, and the pairs that are mistaken most are listed.
    """
    has_names = len(names) <= NAMED
    widths = [1.25, 1] if has_names else [1.25, 0.6, 1]
    size = max(5, 0.32 * len(names) + 2) if has_names else 6
    figure = Figure(figsize=(size * sum(widths) / widths[0], size), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(widths), width_ratios=widths)
    with drawn(names) as names:
        _draw_matrix(panels[0], confusions, names if has_names else None, len(names))
        if not has_names:
            _list_worst(panels[1], confusions, names)
        _draw_reliability(panels[-1], calibration)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    return path


def _draw_matrix(
    axes: Axes, confusions: Confusions, names: Sequence[str] | None, classes: int
) -> None:
    # Neighbouring classes share a cell where there are too many: pairs, not K x K numbers.
    step = -(-classes // CELLS)
    cells = -(-classes // step)
    counts = np.zeros((cells, cells))
    pairs = (confusions.labels // step, confusions.taken_for // step)
    np.add.at(counts, pairs, confusions.counts)
    totals = counts.sum(axis=1, keepdims=True)
    parts = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    # Rare mistakes must show beside a diagonal close to 1.
    axes.imshow(np.sqrt(parts), cmap="Blues" if names else "magma", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="true class")
    if names is None:
        axes.set(xticks=[], yticks=[], title=f"{classes:,} classes, in their order")
        return
    axes.set_xticks(range(classes), names, rotation=90, fontsize=7)
    axes.set_yticks(range(classes), names, fontsize=7)
    for row, column in np.argwhere(counts):
        colour = "white" if parts[row, column] > 0.4 else "black"
        text = f"{counts[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)


def _list_worst(axes: Axes, confusions: Confusions, names: Sequence[str]) -> None:
    worst = confusions.worst(WORST)
    lines = [f"{n:>5}  {names[a]}\n         as {names[b]}" for a, b, n in worst]
    axes.set_axis_off()
    axes.set_title("mistaken most", fontsize=9)
    text = "\n".join(lines) or "no mistakes"
    family = ["DejaVu Sans Mono", *matplotlib.rcParams["font.family"]]
    axes.text(0, 1, text, va="top", fontsize=6.5, family=family, transform=axes.transAxes)


def _draw_reliability(axes: Axes, calibration: Calibration) -> None:
    centres = (np.arange(BINS) + 0.5) / BINS
    axes.bar(centres, np.nan_to_num(calibration.accuracy), 0.94 / BINS, color="#1f6fb4")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
    axes.plot(
        calibration.confidence,
        calibration.accuracy,
        "o",
        color="#d9541e",
        markersize=3,
        clip_on=False,
    )
    heights = np.nan_to_num(calibration.accuracy)
    for centre, height, count in zip(centres, heights, calibration.counts, strict=True):
        colour = "white" if height > 0.1 else "black"
        text = f"{count:,}" if count else ""
        axes.text(centre, 0.01, text, fontsize=6, rotation=90, ha="center", color=colour)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"expected calibration error {calibration.error:.4f}", fontsize=9)
