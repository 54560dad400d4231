"""Table 2 of the Perceiver in small: who needs to know which pixels are neighbours?

    python -m benchmarks.permuted_digits [--seeds 0 1 2] [--folder runs/permuted] [--smoke]

A Perceiver and a convolutional network of about the same number of parameters learn real digits
under noise (`configs/digits.py`) twice: as they are, and with all inputs in a fixed random order,
position features attached to their pixels beforehand. To the Perceiver the order means nothing.
Everything else (data, noise, optimiser, steps) is the same in all runs, and what is interrupted
goes on where it stopped. Writes `permuted.png`, and accuracies in percent of 599 held-out digits.
"""

import argparse
import json
import pathlib
import statistics

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import data
import perceiver
from configs import digits
from train import loop

MODELS = {
    "Perceiver IO": ("noisy", "permuted"),
    "convolutional network": ("convnet", "convnet-permuted"),
}
ORDERS = ("as they are", "permuted")

Results = dict[str, dict[str, list[float]]]  # model -> order -> accuracy of each seed, in percent


def measure(folder: pathlib.Path, seeds: list[int], smoke: bool = False) -> Results:
    """Trains all variants with all seeds, each in its own folder, and returns their accuracies."""
    results: Results = {}
    for model, variants in MODELS.items():
        for order, variant in zip(ORDERS, variants, strict=True):
            for seed in seeds:
                config = digits.get_config(f"{variant},smoke" if smoke else variant)
                config.seed = seed
                final = loop.run(config, folder / f"{variant}-{seed}")
                accuracies = results.setdefault(model, {}).setdefault(order, [])
                accuracies.append(100 * final["accuracy"])
    return results


def table(results: Results) -> str:
    """Returns a Markdown table: means, and every seed's own number."""
    lines = ["| model | parameters | as they are | permuted | loss |", "|---|---|---|---|---|"]
    for model, by_order in results.items():
        plain, permuted = (statistics.mean(by_order[order]) for order in ORDERS)
        cells = [
            f"{statistics.mean(values):.1f} % ({', '.join(f'{value:.1f}' for value in values)})"
            for values in (by_order[order] for order in ORDERS)
        ]
        count = parameters(MODELS[model][0])
        lines.append(f"| {model} | {count:,} | {' | '.join(cells)} | {plain - permuted:.1f} |")
    return "\n".join(lines)


def parameters(variant: str) -> int:
    """Returns the number of parameters of a variant's model."""
    model = perceiver.build(digits.get_config(variant).model.to_dict())
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    return sum(x.size for x in jax.tree.leaves(params))


def draw(results: Results, path: pathlib.Path) -> None:
    """Draws digits in both orders beside the errors, one dot for each seed."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2))
    config = digits.get_config("noisy").data
    batches = data.load(config, "validation", batch_size=3, seed=0, train=False)
    pictures = next(batches)["image"][..., 0]  # [3, H, W]
    batches.close()
    order = np.random.RandomState(digits.PERMUTATION).permutation(pictures[0].size)
    shuffled = pictures.reshape(3, -1)[:, order].reshape(pictures.shape)
    axes = left.subplots(2, 3)
    for row, (name, images) in enumerate(zip(ORDERS, (pictures, shuffled), strict=True)):
        for axis, image in zip(axes[row], images, strict=True):
            axis.imshow(image, cmap="gray")
            axis.set_axis_off()
        axes[row, 1].set_title(name, fontsize=8)
    bars = right.subplots()
    for place, by_order in enumerate(results.values()):
        for side, (name, colour) in enumerate(zip(ORDERS, ("#1f6fb4", "#d9541e"), strict=True)):
            errors, x = [100 - value for value in by_order[name]], place + 0.4 * (side - 0.5)
            mean = statistics.mean(errors)
            bars.bar(x, mean, 0.36, color=colour, label=name, alpha=0.6)
            bars.plot([x] * len(errors), errors, "k.", markersize=4)
            bars.text(x, mean / 2, f"{mean:.1f} %", ha="center", fontsize=9)
    bars.set_xticks(range(len(results)), list(results))
    bars.set_ylabel("held-out errors, %")
    bars.margins(y=0.35)  # room for the legend
    handles, labels = bars.get_legend_handles_labels()
    bars.legend(handles[: len(ORDERS)], labels[: len(ORDERS)], title="pixels", fontsize=8, ncols=2)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures, prints the table, draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/permuted"))
    parser.add_argument("--json", type=pathlib.Path, help="write the accuracies there too")
    parser.add_argument("--smoke", action="store_true", help="two steps each, to try it")
    options = parser.parse_args()
    results = measure(options.folder, options.seeds, options.smoke)
    print(table(results))
    draw(results, options.folder / "permuted.png")
    print(f"picture: {options.folder / 'permuted.png'}")
    if options.json:
        options.json.write_text(json.dumps({"seeds": options.seeds, "accuracy": results}, indent=2))


if __name__ == "__main__":
    main()
