"""DeepNet's claims in small: does a stack of 1,000 layers train, and what does its depth cost?

    python -m benchmarks.deepnet [PART ...] [--folder runs/deepnet] [--json FILE] [--smoke]

PART is one of (default: all)
  training   1,000 layers on `stdlib_text` by the training loop (`configs/masked_lm.py:deepnet`),
             DeepNorm beside post-norm and pre-norm, and a Perceiver with 100 layers on its latents;
             same data, optimiser, steps and seed. What is interrupted goes on where it stopped.
  update     how far updates move the output, against depth, beside the bound of theorem 4.2
  memory     temporary memory of a gradient against depth, for each choice of remat

What a part finds is kept in FOLDER/PART.json, out of which the tables and FOLDER/deepnet.png come:
parts may be run one by one.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

from benchmarks import deepnet_memory, deepnet_picture, deepnet_training, deepnet_update, table
from perceiver.processor import REMAT

Rows = list[dict[str, Any]]
TINY = (4, 16, 64)  # depths of a smoke run


def training(options: argparse.Namespace) -> Rows:
    """Trains all trials."""
    trials = deepnet_training.TRIALS[: 1 if options.smoke else None]
    return [deepnet_training.train(x, options.folder, smoke=options.smoke) for x in trials]


def update(options: argparse.Namespace) -> Rows:
    """Measures updates at all depths."""
    depths = TINY[:1] if options.smoke else deepnet_update.DEPTHS
    residuals = deepnet_update.RESIDUALS[: 1 if options.smoke else None]
    return [
        dataclasses.asdict(deepnet_update.measure(residual, layers))
        for residual in residuals
        for layers in depths
    ]


def memory(options: argparse.Namespace) -> Rows:
    """Compiles gradients at all depths."""
    depths = TINY if options.smoke else deepnet_memory.DEPTHS
    remats = REMAT[1:2] if options.smoke else REMAT
    rows = [deepnet_memory.measure(remat, layers) for remat in remats for layers in depths]
    return [dataclasses.asdict(row) for row in rows]


PARTS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "training": training,
    "update": update,
    "memory": memory,
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
    kinds = (*deepnet_update.KINDS, "all")
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
        own = [deepnet_memory.Memory(**row) for row in rows if row["remat"] == remat]
        sizes = [f"{row.temporary / 2**20:,.1f} MiB" for row in own]
        lines.append(_line(remat, *sizes, f"{deepnet_memory.exponent(own):.2f}"))
    return "\n".join(lines)


def _line(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Measures what was asked for, prints the tables of all that is there, draws the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    picture = options.folder / "deepnet.png"
    deepnet_picture.draw(found, picture)
    print(f"picture: {picture}")
    if options.json:
        settings = {"smoke": options.smoke, "environment": table.environment()}
        options.json.write_text(json.dumps(settings | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
