"""Does a model of sight and sound gain from both, and can it still hear when it sees nothing?

    python -m benchmarks.fusion [--seeds 0 1 2] [--data_dir runs/data] [--smoke]

Trains `configs/audioset.py:embedded`, on synthetic scenes, with sound alone, sight alone, both, and
both without video dropout. Everything else is the same in all runs; what is interrupted goes on
where it stopped. Prints mean average precisions in percent of held-out scenes: of all classes, and
of those that need sight, sound, either or both (`data/prepare/scene_plans.py`). Models of both are
evaluated with all pictures blank too. The scenes are prepared first, if they are not there.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import time

import jax.numpy as jnp
import numpy as np
from train.broken import BrokenExamples

from configs import audioset
from data.prepare import scene_plans, scenes
from train import evaluate, loop, ranking, trained

# What is trained -> variant of configs/audioset.py, fields of the model that are changed.
MODELS = {
    "sound": ("embedded-audio", {}),
    "sight": ("embedded-video", {}),
    "both": ("embedded", {}),
    "both, no video dropout": ("embedded", {"video_dropout": 0.0}),
}
BLANK = ", pictures blank"
COLUMNS = ("all", *scene_plans.GROUPS)
CHANCE = "chance"

# row -> column -> mAP of each seed, in percent
Results = dict[str, dict[str, list[float]]]


def measure(
    folder: pathlib.Path, data_dir: pathlib.Path, seeds: list[int], smoke: bool = False
) -> tuple[Results, dict[str, list[float]]]:
    """Trains all models with all seeds, each in its own folder.

    Returns:
      mAPs; and seconds of training of each model and seed, near 0 of runs that were there already.
    """
    results: Results = {}
    seconds: dict[str, list[float]] = {}
    for name, (variant, changes) in MODELS.items():
        for seed in seeds:
            config = audioset.get_config(f"{variant},smoke" if smoke else variant)
            config.seed = seed
            config.data.data_dir = str(data_dir)
            config.model.update(changes)
            run = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            start = time.perf_counter()
            loop.run(config, run)
            seconds.setdefault(name, []).append(time.perf_counter() - start)
            model = trained.from_run(run)
            found = {name: scores(model)}
            if name.startswith("both"):
                found[name + BLANK] = scores(model, blank=True)
            for row, columns in found.items():
                for column, value in columns.items():
                    results.setdefault(row, {}).setdefault(column, []).append(value)
    chance = prevalence(model)
    results[CHANCE] = {column: [value] for column, value in chance.items()}
    return results, seconds


def scores(model: trained.Trained, *, blank: bool = False) -> dict[str, float]:
    """Returns the mAP in percent of each column, with all pictures zero if `blank`."""
    experiment = model.experiment
    if blank:
        task = experiment.task

        def predict(params, net_state, batch):
            return task.predict(
                params, net_state, batch | {"video": jnp.zeros_like(batch["video"])}
            )

        experiment = dataclasses.replace(
            experiment, task=dataclasses.replace(task, predict=predict)
        )
    rows = _predict(experiment, model.state)
    names = experiment.info.labels
    found = ranking.rank(rows["scores"], rows["labels"], classes=len(names))
    return _columns(found.average_precision, names)


def prevalence(model: trained.Trained) -> dict[str, float]:
    """Returns the mAP in percent of scores that are all equal: the classes' shares of the clips."""
    labels = _predict(model.experiment, model.state)["labels"]
    shares = np.where(labels.any(axis=0), labels.mean(axis=0), np.nan)
    return _columns(shares, model.experiment.info.labels)


def _predict(experiment, state):
    broken = BrokenExamples(lambda text: print(text, file=sys.stderr))
    return evaluate.predict(experiment, state, broken)[1]


def _columns(values: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Means over the classes of each group; NaN, of a class that is not counted, is left out."""
    groups = {"all": names, **scene_plans.GROUPS}
    places = {column: [names.index(name) for name in groups[column]] for column in COLUMNS}
    kept = {column: values[index][~np.isnan(values[index])] for column, index in places.items()}
    return {column: 100 * float(x.mean()) for column, x in kept.items() if len(x)}


def table(results: Results) -> str:
    """Returns a Markdown table: means, and of all classes every seed's own number."""
    groups = [f"classes of {group}" for group in COLUMNS[1:]]
    lines = ["| trained on | mAP, all classes | " + " | ".join(groups) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for row, columns in results.items():
        means = {column: f"{statistics.mean(values):.1f}" for column, values in columns.items()}
        own = ", ".join(f"{value:.1f}" for value in columns["all"])
        first = means["all"] if row == CHANCE else f"{means['all']} ({own})"
        rest = [means.get(column, "-") for column in COLUMNS[1:]]
        lines.append(f"| {row} | {first} | {' | '.join(rest)} |")
    return "\n".join(lines)


def main() -> None:
    """Prepares, measures, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data_dir", type=pathlib.Path, default=pathlib.Path("runs/data"))
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/fusion"))
    parser.add_argument("--processes", type=int, default=2, help="that prepare the scenes")
    parser.add_argument("--json", type=pathlib.Path, help="write the numbers there too")
    parser.add_argument("--smoke", action="store_true", help="two steps each, to try it")
    options = parser.parse_args()
    sizes = {"train_clips": 9, "eval_clips": 9, "seconds": 1.0} if options.smoke else {}
    start = time.perf_counter()
    if not (options.data_dir / "scenes").exists():
        scenes.prepare(options.data_dir, processes=options.processes, **sizes)
        print(f"scenes prepared in {time.perf_counter() - start:.0f} s")
    results, seconds = measure(options.folder, options.data_dir, options.seeds, options.smoke)
    print(table(results))
    for name, values in seconds.items():
        print(f"seconds of training, {name}: {', '.join(f'{value:.0f}' for value in values)}")
    if options.json:
        found = {"seeds": options.seeds, "mAP": results, "seconds": seconds}
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
