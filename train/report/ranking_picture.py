"""A picture of a ranking: precision over recall of the best and the worst classes, all APs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from train.objective.ranking import Ranking
from train.report.names import drawn

SHOWN = 5  # classes of each end
BINS = 20  # of average precision


def draw(
    path: Path,
    ranking: Ranking,
    scores: np.ndarray,  # [N, K]
    labels: np.ndarray,  # bool [N, K]
    names: Sequence[str],
) -> Path:
    """Draws the curves beside the histogram, for a ranking in which some class is counted."""
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    best_axes, worst_axes, histogram = figure.subplots(1, 3)
    counted = np.flatnonzero(ranking.counted)
    order = counted[np.argsort(ranking.average_precision[counted], kind="stable")]
    ends = {"best": (best_axes, order[::-1][:SHOWN]), "worst": (worst_axes, order[:SHOWN])}
    with drawn(names) as names:
        for which, (axes, classes) in ends.items():
            _draw_curves(axes, ranking, scores, labels, names, classes)
            axes.set_title(f"the {which} of {len(counted):,} classes", fontsize=10)
        _draw_histogram(histogram, ranking)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    return path


def precision_recall(
    scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # [N], bool [N] -> [P], [P]
    """Returns precision and recall at each distinct score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(labels[order])[ends]
    return hits / (ends + 1), hits / labels.sum()


def _draw_curves(
    axes: Axes,
    ranking: Ranking,
    scores: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    classes: np.ndarray,
) -> None:
    for k in classes:
        precision, recall = precision_recall(scores[:, k], labels[:, k])
        label = f"{ranking.average_precision[k]:.3f} {names[k]}"
        # Average precision is the area under steps, not under slopes.
        recall = np.append(0, recall)
        precision = np.append(precision[0], precision)
        axes.step(recall, precision, where="pre", linewidth=1.3, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    axes.legend(frameon=False, fontsize=7, title="average precision", title_fontsize=7)
    axes.grid(alpha=0.25)


def _draw_histogram(axes: Axes, ranking: Ranking) -> None:
    values = ranking.average_precision[ranking.counted]
    axes.hist(values, bins=np.linspace(0, 1, BINS + 1), color="#1f6fb4")
    axes.axvline(values.mean(), color="#d9541e", label=f"mean (mAP) {values.mean():.3f}")
    axes.set(xlim=(0, 1), xlabel="average precision", ylabel="classes")
    left_out = len(ranking.positives) - len(values)
    title = f"{len(values):,} classes" + (f", {left_out:,} left out" if left_out else "")
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=8)
