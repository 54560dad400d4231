"""Evaluation: one pass over a split in which every example counts once, on any number of devices.

    python -m train.evaluate WORKDIR                   the last checkpoint of a run
    python -m train.evaluate --config=configs/imagenet.py:fourier --weights=SOURCE
                                                       any weights, on the data of any config

Both use the validation split. SOURCE is anything that `perceiver.load` accepts: a released name, a
file or folder in any format, a run. `--config.FIELD=VALUE` changes a field, also of a run's config.
Classifiers are evaluated by loss, top-1 and top-5 accuracy and calibration error; `--out` gets a
table of the classes (classes.csv), the confusion matrix and calibration (confusions.png), and what
the latents attend to (attention.png). Clip taggers are evaluated by loss, mAP, AUC and d', with a
table of the classes and precision-recall curves of the best and the worst (precision_recall.png).
Sentence encoders are evaluated by the correlation of cosines with scores, or by retrieval recall.
"""

import argparse
import contextlib
import itertools
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from train import command, export
from train.experiment import Experiment
from train.guard.broken_examples import BrokenExamples
from train.guard.preemption import Preemption
from train.objective import metrics
from train.run import trained_model
from train.step import TrainState, make_predict_step
from train.tasks import Batch


def evaluate(
    experiment: Experiment,
    eval_step: Callable,
    state: TrainState,
    broken: BrokenExamples,
    preemption: Preemption,
) -> dict[str, float] | None:
    """Returns the metrics of the whole validation split; adds to `broken` what it skipped.

    None where an urgent preemption came first: the time that is left is for saving.
    """
    put = experiment.placement.put
    with contextlib.closing(experiment.batches("validation", train=False)) as batches:
        in_time = itertools.takewhile(lambda _: not preemption.is_urgent, batches)
        results = metrics.total(eval_step(state, put(batch)) for batch in in_time)
        broken.log_new("validation", batches)
    return None if preemption.is_urgent else metrics.means(results)


def predict(
    experiment: Experiment, state: TrainState, broken: BrokenExamples
) -> tuple[dict[str, float], Batch]:
    """Returns the same metrics, and the predictions [N, ...] of all examples, as they come.

    Of each example only what the task keeps is held, on the host.
    """
    placement = experiment.placement
    step = placement.settled(placement.compile_predict(make_predict_step(experiment.task)))
    kept: list[Batch] = []

    def sums(batches) -> Iterator:
        pending = None
        for batch in batches:
            outputs, rows = step(state, placement.put(batch))
            if pending is not None:  # the device works on the next batch meanwhile
                kept.append(_real(placement.rows(pending[0]), pending[1]))
            pending = rows, batch["mask"]
            yield outputs
        if pending is not None:
            kept.append(_real(placement.rows(pending[0]), pending[1]))

    with contextlib.closing(experiment.batches("validation", train=False)) as batches:
        results = metrics.total(sums(batches))
        broken.log_new("validation", batches)
    names = kept[0] if kept else ()
    return metrics.means(results), {k: np.concatenate([rows[k] for rows in kept]) for k in names}


def _real(rows: Batch, mask: np.ndarray) -> Batch:
    return {name: x[mask] for name, x in rows.items()}


def assess(
    model: trained_model.TrainedModel, folder: pathlib.Path | None, broken: BrokenExamples
) -> tuple[dict[str, float], dict[str, pathlib.Path]]:
    """Evaluates a model in all that its task offers.

    Args:
      model: with its experiment.
      folder: for tables and pictures; None: metrics only.
      broken: what could not be read is added.

    Returns:
      Metrics, the scores of simple predictors among them, and {what: file}.
    """
    experiment = model.experiment
    results, predictions = predict(experiment, model.state, broken)
    files = {}
    if predictions and len(next(iter(predictions.values()))):
        scores, files = experiment.task.assess(predictions, folder)
        results |= scores
    whole = experiment.batches("validation", train=False, whole=True)
    results |= experiment.task.references(whole)
    if folder is not None:
        files |= draw(model, folder)
    return results, files


def draw(model: trained_model.TrainedModel, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Draws what the task has to show of the first examples; returns {what: file}."""
    experiment = model.experiment
    params, net_state = export.weights_of(experiment, model.state)
    return experiment.task.show(params, net_state, experiment.first_batch(), folder)


def main(words: Sequence[str] | None = None) -> None:
    """Evaluates a run, or weights in the experiment of a config."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("workdir", nargs="?", help="folder of a run, as a path or URL")
    parser.add_argument(
        "--config", metavar="FILE:VARIANT", help="config of model and data, with --weights"
    )
    parser.add_argument("--weights", metavar="SOURCE", help="weights to evaluate, with --config")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="folder for tables and images (default: WORKDIR/evaluation; none with --weights)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments, changes = parser.parse_known_args(words)
    unknown = [word for word in changes if not word.startswith("--config.")]
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    broken = BrokenExamples(lambda text: print(text, file=sys.stderr))
    try:
        model = _load(arguments, changes)
        for notice in model.notices:
            print(f"notice: {notice}", file=sys.stderr)
        folder = arguments.out
        if folder is None and arguments.workdir and "://" not in arguments.workdir:
            folder = _writable(pathlib.Path(arguments.workdir) / "evaluation")
        results, files = assess(model, folder, broken)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    skipped = broken.names()
    examples = model.experiment.info.examples["validation"] - len(skipped)
    if arguments.json:
        facts = {"source": model.source, "step": model.step, "examples": examples}
        facts |= {"broken": skipped, "notices": list(model.notices)}
        paths = {what: str(path) for what, path in files.items()}
        print(json.dumps(facts | results | {"files": paths}))
        return
    name = model.source if model.step is None else f"{model.source}, step {model.step}"
    print(f"{name}: {examples:,} examples of {model.experiment.info.name}")
    for metric, value in results.items():
        print(f"  {metric:<18} {value:.4f}")
    for what, path in files.items():
        print(f"  {what}: {path}")
    broken.summarise()


def _writable(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder, made if need be; None, with a notice, where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        print(
            f"notice: no tables and images, {folder} cannot be written ({error.strerror}): name "
            "another folder by --out",
            file=sys.stderr,
        )
        return None


def _load(arguments: argparse.Namespace, changes: Sequence[str]) -> trained_model.TrainedModel:
    if (arguments.workdir is None) == (arguments.weights is None):
        raise ValueError(
            "give either the folder of a run, or --config=FILE:VARIANT with --weights=SOURCE"
        )
    if (arguments.config is None) != (arguments.weights is None):
        raise ValueError("give --config and --weights together, or a run, which has its own config")
    if arguments.weights is not None:
        config = command.read([f"--config={arguments.config}", *changes])
        return trained_model.from_weights(config, arguments.weights)
    config = trained_model.config_here(arguments.workdir)
    return trained_model.from_run(arguments.workdir, command.read(changes, config))


if __name__ == "__main__":
    main()
