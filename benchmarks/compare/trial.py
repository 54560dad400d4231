"""One training within an experiment of the project: its task, data, step and evaluation.

It keeps no checkpoints, which makes it short: a hundred small trainings share six compilations.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax

from train import experiment, metrics, step


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Compiled functions of one model, for any seed and any part of its data."""

    config: Any
    train_step: Callable
    eval_step: Callable
    init: Callable[[int], step.TrainState]

    def run(
        self, *, seed: int, examples: int = 0, steps: int = 1, cpu_seconds: float = 0.0
    ) -> dict[str, float]:
        """Trains afresh and returns the metrics of all held-out examples, and the `steps` taken.

        Args:
          seed: of the parameters, the order and the random choices of the data.
          examples: of the training split that are used, see `data.subset`; 0: all.
          steps: to take, at least.
          cpu_seconds: to train as long as there is time left, compilation not counted.
        """
        config = self.config.copy_and_resolve_references()
        with config.unlocked():
            config.seed = seed
            config.data.train_examples = examples
        current = experiment.make(config.lock())
        state = current.placement.place(self.init(seed))
        with contextlib.closing(current.batches("train", train=True)) as batches:
            state, taken = self._step(current, state, batches), 1  # which compiles
            began = time.process_time()
            while taken < steps or time.process_time() - began < cpu_seconds:
                state, taken = self._step(current, state, batches), taken + 1
        with contextlib.closing(current.batches("validation", train=False)) as batches:
            put = current.placement.put
            found = metrics.total(self.eval_step(state, put(x)) for x in batches)
        return metrics.means(found) | {"steps": taken}

    def _step(self, current: experiment.Experiment, state, batches) -> step.TrainState:
        batch = current.placement.put(next(batches))
        return jax.block_until_ready(self.train_step(state, batch)[0])


def trainer(config: Any) -> Trainer:
    """Compiles the steps of a config. Random features are drawn alike for all seeds."""
    made = experiment.make(config)
    init = functools.partial(_init, made)
    return Trainer(config, made.train_step(), made.eval_step(), jax.jit(init))


def _init(made: experiment.Experiment, seed) -> step.TrainState:
    example = made.task.model.example_inputs(1)
    return step.init_state(made.task, made.optimizer, seed, example)
