"""Exports the model of a run.

python -m train.export WORKDIR     writes WORKDIR/model from the last checkpoint
"""

import pathlib
import sys
from typing import Any

import jax
from jax.experimental import multihost_utils

from perceiver.weights import native
from train.experiment import Experiment
from train.run import trained_model
from train.step import TrainState


def weights_of(experiment: Experiment, state: TrainState) -> tuple[Any, Any]:
    """Returns host copies of (params, net_state); the averaged parameters where there are any.

    All hosts must call it: each may hold a part.
    """
    state = experiment.placement.canonical(state)
    weights = (state.params if state.ema is None else state.ema, state.net_state)
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(weights, tiled=True)
    return jax.device_get(weights)


def main(arguments: list[str]) -> None:
    """Exports the last checkpoint of a run."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise SystemExit("usage: python -m train.export WORKDIR")
    folder = pathlib.Path(arguments[0])
    try:
        model = trained_model.from_run(folder)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    task = model.experiment.task
    params, net_state = weights_of(model.experiment, model.state)
    native.save(folder / "model", task.model, params, net_state, task.usage)
    print(f"exported step {model.step} to {folder / 'model'}")


if __name__ == "__main__":
    main(sys.argv[1:])
