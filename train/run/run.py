"""A run while a process works on it: its parts, and how they are opened and closed."""

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax

from train.checkpoint import folders
from train.checkpoint.checkpoint import Checkpoints
from train.checkpoint.remote_folder import RemoteFolder
from train.devices import hardware, sharding
from train.experiment import Experiment, make
from train.guard.broken_examples import BrokenExamples
from train.guard.preemption import Preemption, listen
from train.guard.spikes import SpikeDetector
from train.guard.watchdog import Watchdog
from train.report import model_flops, provenance
from train.report.profile import Profile
from train.report.report import RunReport
from train.report.speed import DeviceWatch
from train.run import workdir
from train.run.init_from import with_weights
from train.run.saver import Saver
from train.run.window import MetricWindow
from train.step import TrainState


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of a run. `open_run` opens and closes them."""

    experiment: Experiment
    folder: pathlib.Path  # local, see `RemoteFolder`
    main_host: bool  # whether this one reports
    batches: Any  # `data.Batches` of the training split
    window: MetricWindow
    saver: Saver
    report: RunReport
    preemption: Preemption
    watch: DeviceWatch
    watchdog: Watchdog
    profile: Profile
    remote: RemoteFolder
    broken: BrokenExamples
    evaluation_due: bool  # at the first step: an earlier process had no time for it


@contextlib.contextmanager
def open_run(
    config: Any, folder: str | os.PathLike, profile: str = ""
) -> Iterator[tuple[Run, TrainState]]:
    """Opens a run where its last process stopped: yields its parts and its state.

    Raises:
      ValueError, FileNotFoundError: a setting or input that cannot work; nothing was written.
    """
    with contextlib.ExitStack() as stack:
        enter, closing = stack.enter_context, contextlib.closing
        preemption = enter(listen())
        experiment = make(config)
        config, main_host = experiment.config, jax.process_index() == 0
        remote = enter(RemoteFolder(folder, write=main_host))
        if main_host and not folders.is_remote(folders.of(folder)):
            enter(workdir.lock(remote.folder))
        folder = workdir.claim(remote.folder, config, write=main_host)
        if main_host:
            provenance.append(folder, sys.argv[1:])
        keep = {"keep": config.train.keep, "keep_every": config.train.keep_every}
        checkpoints = enter(Checkpoints(remote.checkpoints, **keep))
        batches = enter(closing(experiment.batches("train", train=True)))
        state, past, origin = _start(experiment, checkpoints)
        batches.restore(past.get("batches") or batches.state())
        report = enter(_report(experiment, folder, int(state.step), main_host))
        watchdog = Watchdog(
            folder,
            slow_step=config.guard.slow_step,
            hang_seconds=config.guard.hang_seconds,
            log=report.log,
        )
        window = MetricWindow(
            experiment.placement,
            past.get("window"),
            max_skips=config.guard.max_skips,
            check_loss=SpikeDetector(config.guard.spike).check,
            log=report.log,
        )
        for damage in checkpoints.damaged:
            report.log(f"skipped the damaged checkpoint {damage.path}: {damage.reason}")
        _introduce(report, experiment, state, origin)
        run = Run(
            experiment=experiment,
            folder=folder,
            main_host=main_host,
            batches=batches,
            window=window,
            saver=Saver(experiment, checkpoints, batches, window, report.log),
            report=report,
            preemption=preemption,
            watch=enter(DeviceWatch()),
            watchdog=enter(watchdog),
            profile=enter(Profile(profile, folder, steps=config.train.steps, log=report.log)),
            remote=remote,
            broken=BrokenExamples(report.log),
            evaluation_due=not past.get("evaluated", True),
        )
        yield run, state


def _start(experiment: Experiment, checkpoints: Checkpoints):
    """Own last checkpoint, else `init_from`, else fresh: (state, what else was saved, origin)."""
    restored = checkpoints.restore(experiment.abstract_state())
    if restored is not None:
        steps = experiment.config.train.steps
        if restored.step > steps:
            raise ValueError(
                f"train.steps={steps}, but the run is at step {restored.step} already; raise it"
            )
        return restored.state, restored.data_state, f"resumed at step {restored.step}"
    state = experiment.placement.init(experiment.init_state)
    section = experiment.config.init_from
    if not section.source:
        return state, {}, f"fresh, seed {experiment.config.seed}"
    state = with_weights(experiment, state, section.source, section.ignore)
    origin = f"from {section.source}"
    if section.ignore:
        origin += f" but {', '.join(section.ignore)}"
    return state, {}, origin


def _report(experiment: Experiment, folder: pathlib.Path, step: int, main_host: bool) -> RunReport:
    config, model = experiment.config, experiment.task.model
    operands = getattr(model.spec, "operands", "float32")
    return RunReport(
        folder,
        config.train.steps,
        batch_size=config.data.batch_size,
        start_step=step,
        shown=experiment.task.shown,
        active=main_host,
        # texts of a pair go through the model one by one
        flops_per_example=experiment.info.texts * model_flops.flops_per_example(model),
        devices=experiment.placement.devices,
        peak_flops=hardware.peak_flops(jax.devices()[0], operands),
    )


def _introduce(report: RunReport, experiment: Experiment, state: TrainState, origin: str) -> None:
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    layout = experiment.placement
    examples = experiment.info.examples
    hosts = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    report.log(
        f"{experiment.task.name} on {experiment.info.name} "
        f"({examples['train']:,} training, {examples['validation']:,} validation examples), "
        f"{parameters:,} parameters, {layout} on {layout.devices} x "
        f"{jax.devices()[0].device_kind}{hosts}, {origin}"
    )
    plans = experiment.task.model.explain(is_training=True)
    for plan in dict.fromkeys(map(str, plans.values())):  # stages of the same plan are told once
        names = [name for name, other in plans.items() if str(other) == plan]
        report.log(f"cross-attend, {', '.join(names)}: {plan}")
    if layout.name == "sharded":
        report.log(sharding.format_table(sharding.sharding_table(state)))
