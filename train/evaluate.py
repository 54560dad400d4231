"""Evaluation: one pass over a split in which every example counts once, on any number of devices.

python -m train.evaluate WORKDIR          the last checkpoint of a run, on its validation split
python -m train.evaluate WORKDIR --json   one JSON object for programs
"""

import argparse
import contextlib
import json
import pathlib
from collections.abc import Callable

from train import metrics, workdir
from train.broken import BrokenExamples
from train.checkpoint import Checkpoints
from train.experiment import Experiment, make
from train.step import TrainState


def evaluate(
    experiment: Experiment, eval_step: Callable, state: TrainState, broken: BrokenExamples
) -> dict[str, float]:
    """Returns the metrics of the whole validation split; adds to `broken` what it skipped."""
    put = experiment.placement.put
    with contextlib.closing(experiment.batches("validation", train=False)) as batches:
        results = metrics.total(eval_step(state, put(batch)) for batch in batches)
        broken.look("validation", batches)
    return metrics.means(results)


def main() -> None:
    """Evaluates the last checkpoint of a run."""
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("workdir", type=pathlib.Path, help="folder of a run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    try:
        experiment = make(workdir.read(arguments.workdir))
        folder = arguments.workdir / "checkpoints"
        with Checkpoints(folder, read_only=True) as checkpoints:
            restored = checkpoints.restore(experiment.abstract_state())
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    if restored is None:
        parser.error(f"{arguments.workdir} has no checkpoint yet; go on training it")
    results = evaluate(experiment, experiment.eval_step(), restored.state)
    whole = experiment.batches("validation", train=False, whole=True)
    results |= experiment.task.references(whole)
    if arguments.json:
        print(json.dumps({"step": restored.step} | results))
    else:
        print(f"step {restored.step}, {experiment.info.examples['validation']:,} examples")
        for name, value in results.items():
            print(f"  {name:<16} {value:.4f}")


if __name__ == "__main__":
    main()
