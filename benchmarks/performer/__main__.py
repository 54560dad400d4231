"""`python -m benchmarks.performer`: measures, prints, draws. See `benchmarks.performer`."""

import argparse
import json
import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import benchmarks.performer
from benchmarks.performer import error, scaling, swap

PARTS = ("error", "scaling", "swap")
PICTURE = pathlib.Path(__file__).parents[1] / "performer.png"
COLOURS = {
    "positive": "#1f6fb4",
    "hyperbolic": "#2ca02c",
    "trigonometric": "#d9541e",
    "ReLU": "#8c564b",
    "exact": "#444444",
}


def draw(found: dict, path: pathlib.Path) -> None:
    """Draws errors above; time, memory and the swap below."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 3)
    _draw_kernels(top[0], found["kernel"])
    for axes, scale in zip(top[1:], error.SCALES, strict=True):
        _draw_attention(axes, [row for row in found["attention"] if row["scale"] == scale])
        axes.set_title(f"logits of variance {scale**4:.2g}", fontsize=9)
    for axes, field in zip(bottom, scaling.FIELDS, strict=False):
        _draw_scaling(axes, found["scaling"], field)
    for axes in (*top, *bottom[:2]):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    _draw_swap(bottom[2], found.get("swap", []))
    figure.savefig(path, dpi=100)


def _draw_scaling(axes, rows: list[dict], field: str) -> None:
    for kernel in scaling.KERNELS.values():
        for work, style in zip(scaling.WORKS, ("o:", "s-"), strict=True):
            points = scaling.points(rows, kernel, work, field)
            x, y = zip(*points, strict=True)
            name = f"{kernel}, {work}: exponent {scaling.slope(points):.2f}"
            axes.loglog(x, y, style, color=COLOURS[kernel], label=name, markersize=4)
    axes.set(xlabel="elements", ylabel=scaling.FIELDS[field])


def _draw_swap(axes, rows: list[dict]) -> None:
    names = [row["kernel"].replace(", ", ",\n") for row in rows]
    for side, (field, label) in enumerate((("swapped", "as it is"), ("tuned", "tuned"))):
        places = [place + 0.4 * (side - 0.5) for place in range(len(rows))]
        bars = axes.bar(places, [row[field] for row in rows], 0.36, label=label)
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.set_xticks(range(len(rows)), names, fontsize=8)
    axes.set_ylabel("held-out bits per masked byte")
    axes.legend(fontsize=7)


def _draw_kernels(axes, rows: list[dict]) -> None:
    for kind in error.KINDS:
        for orthogonal, marker in ((False, "o"), (True, "x")):
            own = [r for r in rows if (r["kind"], r["orthogonal"]) == (kind, orthogonal)]
            angles = [row["angle"] for row in own]
            name = f"{kind}, {'orthogonal' if orthogonal else 'independent'}"
            measured = [row["measured"] for row in own]
            axes.semilogy(angles, measured, marker, color=COLOURS[kind], label=name, markersize=4)
        axes.semilogy(angles, [row["closed_form"] for row in own], "-", color=COLOURS[kind], lw=1)
    axes.set(xlabel="angle between x and y", ylabel="squared error of exp(x . y); lines: theory")


def _draw_attention(axes, rows: list[dict]) -> None:
    for kind in error.KINDS:
        for orthogonal, style in ((False, "o:"), (True, "x-")):
            own = [r for r in rows if (r["kind"], r["orthogonal"]) == (kind, orthogonal)]
            x, y = [row["features"] for row in own], [row["error"] for row in own]
            name = f"{kind}, {'orthogonal' if orthogonal else 'independent'}"
            axes.loglog(x, y, style, color=COLOURS[kind], label=name, markersize=4)
    axes.set(xlabel="random directions", ylabel="relative squared error of attention")


def main() -> None:
    """Measures, prints the tables, draws the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.performer",
        description=benchmarks.performer.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/performer"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=pathlib.Path, help="write all figures there too")
    parser.add_argument("--png", type=pathlib.Path, help=f"default {PICTURE.name}")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to try it")
    options = parser.parse_args()
    found, smoke = {"smoke": options.smoke}, options.smoke
    if "error" in options.parts:
        found["kernel"] = error.kernel_rows()
        sizes = {"length": 64, "features": (4, 16)} if smoke else {}
        found["attention"] = error.attention_rows(**sizes)
        print(error.table(found["attention"]), end="\n\n")
    if "scaling" in options.parts:
        found["scaling"] = scaling.rows(*([(64, 256)] if smoke else []))
        print(scaling.table(found["scaling"]), end="\n\n")
    if "swap" in options.parts:
        found["swap"] = swap.measure(options.folder, smoke)
        print(swap.table(found["swap"]), end="\n\n")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    picture = options.png or (None if smoke else PICTURE)
    if picture and {"error", "scaling"} <= set(options.parts):
        draw(found, picture)
        print(f"wrote {picture}")
    if smoke:
        print("a smoke run: the figures mean nothing")


if __name__ == "__main__":
    main()
