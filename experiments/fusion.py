"""Does a model of sight and sound gain from both, and can it still hear when it sees nothing?

    python -m experiments.fusion [--seeds 0 1 2] [--data_dir runs/data] [--smoke]

Trains `configs/audioset.py:embedded`, on synthetic scenes, with sound alone, sight alone, both, and
both without video dropout; all else is the same. Prints mean average precisions in percent of
held-out scenes: of all classes, and of those that need sight, sound, either or both
(`data/prepare/synthetic/scene_plans.py`). Models of both are evaluated with blank pictures too. The
scenes are prepared first, if they do not exist.
"""

import dataclasses
import pathlib
import statistics
import sys

import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from configs import audioset
from data.clips import scene_plans
from data.prepare.synthetic import scenes
from experiments import common
from train import evaluate, loop
from train.guard.broken_examples import BrokenExamples
from train.objective import ranking
from train.run import trained_model

# What is trained -> variant of configs/audioset.py, fields of the model that are changed.
MODELS = {
    "sound": ("embedded-audio", {}),
    "sight": ("embedded-video", {}),
    "both": ("embedded", {}),
    "both, no video dropout": ("embedded", {"video_dropout": 0.0}),
}
COLUMNS = ("all", *scene_plans.GROUPS)

Scores = dict[str, float]  # column -> mAP in percent


def train(name: str, seed: int, folder: pathlib.Path, data_dir: pathlib.Path, smoke: bool):
    """Trains a model and returns it with its weights."""
    variant, changes = MODELS[name]
    config = audioset.get_config(f"{variant},smoke" if smoke else variant)
    config.seed, config.data.data_dir = seed, str(data_dir)
    config.model.update(changes)
    run = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    loop.run(config, run)
    return trained_model.from_run(run)


def scores(model: trained_model.TrainedModel, *, blank: bool = False) -> Scores:
    """Returns the mAPs, with all pictures zero if `blank`."""
    task = model.experiment.task

    def predict(params, net_state, batch):
        blanked = batch | {"video": jnp.zeros_like(batch["video"])} if blank else batch
        return task.predict(params, net_state, blanked)

    changed = dataclasses.replace(task, predict=predict)
    rows = _predict(dataclasses.replace(model.experiment, task=changed), model.state)
    names = model.experiment.info.labels
    found = ranking.rank(rows["scores"], rows["labels"], classes=len(names))
    return columns(found.average_precision, names)


def chance(model: trained_model.TrainedModel) -> Scores:
    """Returns the mAPs of scores that are all equal: the classes' shares of the clips."""
    labels = _predict(model.experiment, model.state)["labels"]
    shares = np.where(labels.any(axis=0), labels.mean(axis=0), np.nan)
    return columns(shares, model.experiment.info.labels)


def columns(values: np.ndarray, names: tuple[str, ...]) -> Scores:
    """Means over the classes of each group; NaN, of a class that is not counted, is left out."""
    groups = {"all": names, **scene_plans.GROUPS}
    places = {column: [names.index(name) for name in groups[column]] for column in COLUMNS}
    kept = {column: values[index][~np.isnan(values[index])] for column, index in places.items()}
    return {column: 100 * float(x.mean()) for column, x in kept.items() if len(x)}


def _predict(experiment, state):
    broken = BrokenExamples(lambda text: print(text, file=sys.stderr))
    return evaluate.predict(experiment, state, broken)[1]


def row(name: str, found: list[Scores]) -> measure.Row:
    """Returns a table's row: means, and of all classes every seed's own number."""
    cells = {"trained on": name, "all classes": common.each([x["all"] for x in found])}
    for group in COLUMNS[1:]:
        values = [x[group] for x in found if group in x]
        cells[f"of {group}"] = f"{statistics.mean(values):.1f}" if values else "-"
    return cells


def main() -> None:
    """Prepares, trains, prints the table."""
    parser = common.parser(__doc__, "fusion", seeds=True)
    parser.add_argument("--data_dir", type=pathlib.Path, default=pathlib.Path("runs/data"))
    options = parser.parse_args()
    common.start(options)
    sizes = {}
    if options.smoke:
        options.data_dir = options.folder / "data"
        sizes = {"train_clips": 9, "eval_clips": 9, "seconds": 1.0}
    if not (options.data_dir / "scenes").exists():
        scenes.prepare(options.data_dir, processes=2, **sizes)
    rows, arguments = [], (options.folder, options.data_dir, options.smoke)
    for name in ["both"] if options.smoke else MODELS:
        models = [train(name, seed, *arguments) for seed in options.seeds]
        rows.append(row(name, [scores(model) for model in models]))
        if name.startswith("both"):
            blank = [scores(model, blank=True) for model in models]
            rows.append(row(f"{name}, pictures blank", blank))
    measure.show([*rows, row("chance", [chance(models[0])])])


if __name__ == "__main__":
    main()
