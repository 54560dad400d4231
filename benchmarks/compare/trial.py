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

    def run(self, *, steps: int, seed: int, examples: int = 0) -> dict[str, float]:
        """Trains afresh and returns the metrics of all held-out examples.

        Args:
          steps: that are taken; the schedule is that of `config.train.steps`.
          seed: of the parameters, the order and the random choices of the data.
          examples: of the training split that are used, see `data.subset`; 0: all.
        """
        config = self.config.copy_and_resolve_references()
        with config.unlocked():
            config.seed = seed
            config.data.train_examples = examples
        current = experiment.make(config.lock())
        state = current.placement.place(self.init(seed))
        with contextlib.closing(current.batches("train", train=True)) as batches:
            for _ in range(steps):
                state, _ = self.train_step(state, current.placement.put(next(batches)))
        with contextlib.closing(current.batches("validation", train=False)) as batches:
            put = current.placement.put
            return metrics.means(metrics.total(self.eval_step(state, put(x)) for x in batches))

    def seconds(self, repeats: int = 5) -> float:
        """Returns the CPU seconds of a training step, the least of some."""
        current = experiment.make(self.config)
        state = current.placement.place(self.init(0))
        with contextlib.closing(current.batches("train", train=True)) as batches:
            batch = current.placement.put(next(batches))
        took = []
        for _ in range(repeats + 1):  # the first one compiles
            began = time.process_time()
            state, _ = jax.block_until_ready(self.train_step(state, batch))
            took.append(time.process_time() - began)
        return min(took[1:])


def trainer(config: Any) -> Trainer:
    """Compiles the steps of a config. Nothing in it may draw random numbers while training."""
    made = experiment.make(config)
    init = functools.partial(_init, made)
    return Trainer(config, made.train_step(), made.eval_step(), jax.jit(init))


def _init(made: experiment.Experiment, seed) -> step.TrainState:
    example = made.task.model.example_inputs(1)
    return step.init_state(made.task, made.optimizer, seed, example)
