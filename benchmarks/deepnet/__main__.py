"""`python -m benchmarks.deepnet`: measures, prints, draws. See `benchmarks.deepnet`."""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

from perceiver.processor import REMAT

import benchmarks.deepnet
from benchmarks import table
from benchmarks.deepnet import memory, picture, training, update

Rows = list[dict[str, Any]]
TINY = (4, 16, 64)  # depths of a smoke run


def run_training(options: argparse.Namespace) -> Rows:
    """Trains all trials."""
    trials = training.TRIALS[: 1 if options.smoke else None]
    return [training.train(x, options.folder, smoke=options.smoke) for x in trials]


def run_update(options: argparse.Namespace) -> Rows:
    """Measures updates at all depths."""
    depths = TINY[:1] if options.smoke else update.DEPTHS
    residuals = update.RESIDUALS[: 1 if options.smoke else None]
    return [
        dataclasses.asdict(update.measure(residual, layers))
        for residual in residuals
        for layers in depths
    ]


def run_memory(options: argparse.Namespace) -> Rows:
    """Compiles gradients at all depths."""
    depths = TINY if options.smoke else memory.DEPTHS
    remats = REMAT[1:2] if options.smoke else REMAT
    rows = [memory.measure(remat, layers) for remat in remats for layers in depths]
    return [dataclasses.asdict(row) for row in rows]


PARTS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "training": run_training,
    "update": run_update,
    "memory": run_memory,
}


def tables(found: dict[str, Rows]) -> str:
    """Returns Markdown tables of what was found, of each part that was run."""
    makers = {"training": _training_table, "update": _update_table, "memory": _memory_table}
    return "\n\n".join(makers[part](rows) for part, rows in found.items())


def _training_table(rows: Rows) -> str:
    heads = ("model", "layers", "residual", "lr", "steps", "training bits", "held-out bits")
    lines = [_line(*heads, "unigram"), _line(*["---"] * 8)]
    for row in rows:
        ends = [f"{row[name][-1][1]:.3f}" if row[name] else "" for name in ("curve", "held_out")]
        ends[1] = row["diverged"] or ends[1]
        unigram = "" if row["unigram"] is None else f"{row['unigram']:.3f}"
        about = (row["model"], f"{row['layers']:,}", row["residual"], f"{row['rate']:g}")
        lines.append(_line(*about, row["steps"], *ends, unigram))
    return "\n".join(lines)


def _update_table(rows: Rows) -> str:
    kinds = (*update.KINDS, "all")
    heads = ("residual", "layers", "spread", "update", "bound", *kinds)
    lines = [_line(*heads), _line(*["---"] * len(heads))]
    for name in ("descent", "adam"):
        for row in rows:
            about = (row["residual"], f"{row['layers']:,}", f"{row['spread']:.2g}", name)
            numbers = (row[f"{name}_bound"], *(row[name][kind] for kind in kinds))
            lines.append(_line(*about, *(f"{number:.3g}" for number in numbers)))
    return "\n".join(lines)


def _memory_table(rows: Rows) -> str:
    depths = sorted({row["layers"] for row in rows})
    heads = ("remat", *(f"{layers:,} layers" for layers in depths), "grows with depth to the")
    lines = [_line(*heads), _line(*["---"] * len(heads))]
    for remat in dict.fromkeys(row["remat"] for row in rows):
        own = [memory.Memory(**row) for row in rows if row["remat"] == remat]
        sizes = [f"{row.temporary / 2**20:,.1f} MiB" for row in own]
        lines.append(_line(remat, *sizes, f"{memory.exponent(own):.2f}"))
    return "\n".join(lines)


def _line(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Measures what was asked for, prints the tables of all that is there, draws the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deepnet",
        description=benchmarks.deepnet.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/deepnet"))
    parser.add_argument("--json", type=pathlib.Path, help="write all that was found there too")
    parser.add_argument("--smoke", action="store_true", help="two steps of tiny models")
    options = parser.parse_args()
    try:
        asked = table.chosen(PARTS, options.parts)
    except ValueError as error:
        parser.error(str(error))
    options.folder.mkdir(parents=True, exist_ok=True)
    for part in asked:
        kept = options.folder / f"{part}.json"
        kept.write_text(json.dumps(PARTS[part](options), indent=1) + "\n", encoding="utf-8")
    found = {
        part: json.loads(path.read_text(encoding="utf-8"))
        for part in PARTS
        if (path := options.folder / f"{part}.json").exists()
    }
    print(tables(found))
    drawn = options.folder / "deepnet.png"
    picture.draw(found, drawn)
    print(f"picture: {drawn}")
    if options.json:
        settings = {"smoke": options.smoke, "environment": table.environment()}
        options.json.write_text(json.dumps(settings | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
