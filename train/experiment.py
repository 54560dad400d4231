"""Everything that a config determines, made and checked before any time is spent."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import optax

import data
from train import step, tasks
from train.devices import placement
from train.optim import optimizers, schedules
from train.resolve import resolve

NON_FINITE = ("stop", "skip")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of a run. `make` builds one."""

    config: Any  # the resolved ml_collections config, locked
    info: data.DatasetInfo
    task: tasks.Task
    placement: placement.Placement
    optimizer: optax.GradientTransformation
    schedule: Callable[[int], Any]  # step -> learning rate

    def batches(self, split: str, *, train: bool, whole: bool = False) -> data.Batches:
        """Returns this host's share of a split's batches (`Placement.host_rows`), or with `whole`
        all.

        The random choices of evaluation (masks) are the same in all runs, whatever their seed.
        """
        section = self.config.data
        return data.load(
            section,
            split,
            batch_size=section.batch_size if train else section.eval_batch_size,
            seed=self.config.seed if train else 0,
            train=train,
            host_index=0 if whole else self.placement.host_rows.index,
            host_count=1 if whole else self.placement.host_rows.count,
        )

    def first_batch(self) -> data.Batch:
        """Returns the first validation batch, the same on all hosts: examples to show."""
        with contextlib.closing(self.batches("validation", train=False, whole=True)) as batches:
            return next(iter(batches))

    def init_state(self) -> step.TrainState:
        """Returns a fresh state; run it through `placement.init`."""
        return step.init_state(
            self.task,
            self.optimizer,
            self.config.seed,
            self.task.model.example_inputs(1),
            self.config.optim.ema_decay,
        )

    def abstract_state(self) -> step.TrainState:
        """Returns shapes, dtypes and shardings of the state, to restore onto."""
        return self.placement.abstract(self.init_state)

    def train_step(self) -> Callable:
        """Returns the compiled `(state, batch) -> (state, sums)`; the state is donated."""
        make_step = functools.partial(
            step.make_train_step,
            self.task,
            self.optimizer,
            seed=self.config.seed,
            micro_batches=self.config.train.micro_batches,
            ema_decay=self.config.optim.ema_decay,
            skip_non_finite=self.config.guard.non_finite == "skip",
        )
        return self.placement.settled(self.placement.compile_train(make_step))

    def eval_step(self) -> Callable:
        """Returns the compiled `(state, batch) -> sums`."""
        evaluate = step.make_eval_step(self.task)
        return self.placement.settled(self.placement.compile_eval(evaluate))


def make(config: Any) -> Experiment:
    """Builds the parts of a run.

    Raises:
      ValueError: a setting that cannot work, or two that do not fit together; names both and the
        remedy.
      FileNotFoundError: the data set is not on this machine.
    """
    info = data.info(config.data)
    config = resolve(config, info)
    if config.train.steps < 1:
        raise ValueError(f"train.steps={config.train.steps} must be at least 1")
    for field in ("log_every", "eval_every", "save_every", "keep"):
        if getattr(config.train, field) < 1:
            raise ValueError(f"train.{field}={getattr(config.train, field)} must be at least 1")
    if config.guard.non_finite not in NON_FINITE:
        raise ValueError(
            f"guard.non_finite={config.guard.non_finite!r} is unknown; choose one of "
            f"{', '.join(NON_FINITE)}"
        )
    if config.guard.failed_saves < 1:
        raise ValueError(f"guard.failed_saves={config.guard.failed_saves} must be at least 1")
    if config.train.keep_every < 0:
        raise ValueError(f"train.keep_every={config.train.keep_every} must be at least 0 (0: none)")
    if not 0 <= config.optim.ema_decay < 1:
        raise ValueError(f"optim.ema_decay={config.optim.ema_decay} must lie in [0, 1); 0 = off")
    layout = placement.make(config.placement, config.mesh)
    layout.check_batch(config.data.batch_size, config.train.micro_batches)
    layout.check_batch(config.data.eval_batch_size)
    optimizer = optimizers.make(config.optim)
    task = tasks.make(config, info, layout.sequence)
    if layout.sequence is not None:
        task.model.explain()  # raises for inputs that do not divide over the devices
    return Experiment(
        config=config,
        info=info,
        task=task,
        placement=layout,
        optimizer=optimizer,
        schedule=schedules.make(config.optim),
    )
