"""Weights in and out of a run: the model it exports, the model it starts from.

python -m train.export WORKDIR     writes WORKDIR/model from the last checkpoint
"""

import pathlib
import sys
from typing import Any

import jax
from jax.experimental import multihost_utils

from perceiver.weights import mapping, native
from train import workdir
from train.checkpoint import Checkpoints
from train.experiment import Experiment, make
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


def with_weights(experiment: Experiment, state: TrainState, source: str) -> TrainState:
    """Returns a fresh state with the weights of an exported model or of a finished run.

    Raises:
      FileNotFoundError: there is no exported model.
      ValueError: its parameters are not those of this model; lists the paths.
    """
    folder = pathlib.Path(source)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    saved = native.load(folder)
    for have, want in ((saved.params, state.params), (saved.state, state.net_state)):
        old = {key: x.shape for key, x in mapping.flatten(have).items()}
        new = {key: x.shape for key, x in mapping.flatten(want).items()}
        rows = [
            f"{key}: there {old.get(key)}, here {new.get(key)}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if rows:
            raise ValueError(
                f"init_from={source!r} holds another model; make config.model equal to its spec:"
                "\n  " + "\n  ".join(rows)
            )
    fresh = TrainState(
        step=state.step,
        params=saved.params,
        net_state=saved.state,
        opt_state=state.opt_state,
        ema=None if state.ema is None else saved.params,
    )
    return experiment.placement.place(fresh)


def main(arguments: list[str]) -> None:
    """Exports the last checkpoint of a run."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise SystemExit("usage: python -m train.export WORKDIR")
    folder = pathlib.Path(arguments[0])
    experiment = make(workdir.read(folder))
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(experiment.abstract_state())
    if restored is None:
        raise SystemExit(f"{folder} has no checkpoint yet; go on training it")
    params, net_state = weights_of(experiment, restored.state)
    native.save(folder / "model", experiment.task.model, params, net_state, experiment.task.usage)
    print(f"exported step {restored.step} to {folder / 'model'}")


if __name__ == "__main__":
    main(sys.argv[1:])
