"""Table 2 of the Perceiver at small size: which model needs to know which pixels are neighbours?

    python -m experiments.permuted_digits [--seeds 0 1 2] [--smoke]

A Perceiver IO and a convolutional network of about the same number of parameters learn real digits
under noise (`configs/digits.py`) twice: as they are, and with all inputs in a fixed random order,
position features attached to their pixels beforehand. Everything else (data, noise, optimiser,
steps) is the same in all runs. Prints accuracies in percent of 599 held-out digits and draws
permuted_digits.png.
"""

import pathlib
import statistics

import numpy as np

import data
from benchmarks import measure
from configs import digits
from experiments import common
from train import loop

MODELS = {
    "Perceiver IO": ("noisy", "permuted"),
    "convolutional network": ("convnet", "convnet-permuted"),
}
ORDERS = ("as they are", "permuted")

Results = dict[str, dict[str, list[float]]]  # model -> order -> accuracy of each seed, in percent


def run(variant: str, seed: int, folder: pathlib.Path, smoke: bool) -> float:
    """Trains a variant and returns its accuracy in percent."""
    config = digits.get_config(f"{variant},smoke" if smoke else variant)
    config.seed = seed
    return 100 * loop.run(config, folder / f"{variant}-{seed}")["accuracy"]


def draw(results: Results, path: pathlib.Path) -> None:
    """Draws digits in both orders beside the errors, one dot for each seed."""
    figure = common.figure(8, 3)
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
            mean, label = statistics.mean(errors), None if place else name
            bars.bar(x, mean, 0.36, color=colour, label=label, alpha=0.6)
            bars.plot([x] * len(errors), errors, "k.", markersize=4)
            bars.text(x, mean / 2, f"{mean:.1f} %", ha="center", fontsize=9)
    bars.set_xticks(range(len(results)), list(results))
    bars.set_ylabel("held-out errors, %")
    bars.margins(y=0.35)  # room for the legend
    bars.legend(title="pixels", fontsize=8, ncols=2)
    common.save(figure, path)


def main() -> None:
    """Trains, prints the table, draws the picture."""
    options = common.parser(__doc__, "permuted_digits", seeds=True).parse_args()
    common.start(options)
    results: Results = {
        model: {
            order: [run(variant, seed, options.folder, options.smoke) for seed in options.seeds]
            for order, variant in zip(ORDERS, variants, strict=True)
        }
        for model, variants in MODELS.items()
    }
    rows = []
    for model, by_order in results.items():
        count = common.parameters(digits.get_config(MODELS[model][0]).model.to_dict())
        row = {"model": model, "parameters": count}
        rows.append(row | {f"{order}, %": common.each(x) for order, x in by_order.items()})
    measure.show(rows)
    draw(results, options.folder / "permuted_digits.png")


if __name__ == "__main__":
    main()
