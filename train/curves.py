"""Draws the curves of a run from its `metrics.jsonl`: `python -m train.curves WORKDIR`.

One panel per metric, with training and evaluation together; the learning rate comes last.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from train.report import metrics_log

NOT_DRAWN = ("step", *metrics_log.SPEEDS)
LABELS = {"lr": "learning rate"}
SMOOTH_POINTS = 60  # with more points than this, a smoothed curve is drawn over the raw one
COLOURS = ("#1f6fb4", "#d9541e", "#2e8b57", "#8a4fbf", "#8c6d31")  # training, then each split

Curve = tuple[np.ndarray, np.ndarray]  # steps, values: [P] each, values finite


def draw(
    metrics_path: str | os.PathLike[str],
    png_path: str | os.PathLike[str],
    only: Sequence[str] = (),
) -> None:
    """Draws the metrics of a run against the step, without any global state of matplotlib.

    Args:
        metrics_path: The run's `metrics.jsonl`; a half-written last line is passed over.
        png_path: Where the picture goes; replaced at once, not rewritten in place.
        only: Which metrics, in this order; all if empty.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If nothing was logged, a line is broken, or there is no such metric.
    """
    metrics_path, png_path = Path(metrics_path), Path(png_path)
    panels = _panels(metrics_log.read(metrics_path))
    if not panels:
        raise ValueError(f"{metrics_path} has no metrics yet; train past the first log step")
    if unknown := [name for name in only if name not in panels]:
        raise ValueError(f"{metrics_path} has no {unknown[0]!r}, only {', '.join(panels)}")
    panels = {name: panels[name] for name in only or panels}
    figure = Figure(figsize=(8, 0.8 + 2.4 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (name, curves) in zip(all_axes, panels.items(), strict=True):
        _draw_panel(axes, name, curves)
    all_axes[-1].set_xlabel("step")
    all_axes[-1].set_xlim(left=0)
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(metrics_path.resolve().parent.name)
    temporary = png_path.with_name(f".{png_path.name}.{os.getpid()}")
    figure.savefig(temporary, format="png", dpi=120)
    temporary.replace(png_path)


def _panels(rows: Sequence[metrics_log.Row]) -> dict[str, dict[str, Curve]]:
    """Sorts rows into {metric: {"training" or split: curve}}: loss first, learning rate last."""
    points: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        for key, value in row.items():
            split, _, name = key.rpartition("/")
            if name not in NOT_DRAWN and value is not None:
                curve = points.setdefault(name, {}).setdefault(split or "training", [])
                curve.append((row["step"], value))
    order = sorted(points, key=lambda name: (name == "lr", name != "loss"))
    return {
        name: {
            split: (np.array([step for step, _ in curve]), np.array([value for _, value in curve]))
            for split, curve in points[name].items()
        }
        for name in order
    }


def _draw_panel(axes: Axes, name: str, curves: dict[str, Curve]) -> None:
    splits = sorted(curves, key=lambda split: split != "training")
    for index, split in enumerate(splits):
        steps, values = curves[split]
        # Training keeps its colour in panels where it is missing too.
        colour = COLOURS[(index + ("training" not in curves)) % len(COLOURS)]
        label = f"{split}: last {values[-1]:.4g}"
        if split != "training":
            axes.plot(steps, values, "o-", color=colour, markersize=3.5, label=label, zorder=3)
        elif len(values) > SMOOTH_POINTS and name != "lr":
            axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
            label = f"{split}, smoothed: last {smooth(values)[-1]:.4g}"
            axes.plot(steps, smooth(values), color=colour, linewidth=1.6, label=label)
        else:
            marker = "o" if len(values) == 1 else None
            axes.plot(steps, values, color=colour, marker=marker, linewidth=1.6, label=label)
    if _needs_log(name, curves):
        axes.set_yscale("log")
    elif name == "lr":
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.set_ylabel(LABELS.get(name, name.replace("_", " ")))
    axes.margins(x=0.01)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if name != "lr":
        axes.legend(frameon=False, fontsize="small")


def smooth(values: np.ndarray) -> np.ndarray:  # [P] -> [P]
    """Averages each point with its neighbours: a triangle window of a tenth of the curve.

    At the ends the window is cut off, so that the curve neither lags nor bends.
    """
    reach = max(1, len(values) // 20)
    window = np.bartlett(2 * reach + 3)[1:-1]  # [2 * reach + 1], no zeros
    weight = np.convolve(np.ones(len(values)), window)[reach:-reach]
    return np.convolve(values, window)[reach:-reach] / weight


def _needs_log(name: str, curves: dict[str, Curve]) -> bool:
    """Whether the curve can only be read on a log scale.

    A loss that falls by a factor of 30 (smoothed, so that one lucky batch does not decide), or a
    learning rate that falls in steps: its smooth forms end at 0 and are known by their shape.
    """
    values = np.concatenate([smooth(v) if name == "loss" else v for _, v in curves.values()])
    if values.min() <= 0:
        return False
    is_candidate = name == "loss" or (name == "lr" and len(np.unique(values)) <= 10)
    return is_candidate and values.max() > 30 * values.min()


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws WORKDIR/metrics.jsonl to WORKDIR/curves.png."""
    parser = argparse.ArgumentParser(prog="python -m train.curves", description=main.__doc__)
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="the folder of a run")
    parser.add_argument("metrics", nargs="*", metavar="METRIC", help="default: all")
    parser.add_argument("--out", type=Path, help="output file, default: WORKDIR/curves.png")
    options = parser.parse_args(arguments)
    out = options.out or options.workdir / "curves.png"
    try:
        draw(options.workdir / "metrics.jsonl", out, options.metrics)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    print(out)


if __name__ == "__main__":
    main()
