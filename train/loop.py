"""The training loop: the whole story of a run, for every task, model and placement.

The order within a step is an invariant. Evaluation and saving come *before* the next batch is
drawn, and a checkpoint holds state, data position and open metrics at once. So a run that is
killed anywhere and started again goes through the same numbers, bit for bit.
"""

import contextlib
import dataclasses
import os
import pathlib
import sys
from typing import Any

import jax
from jax.experimental import multihost_utils

from perceiver.weights import native
from train import (
    curves,
    export,
    hardware,
    model_flops,
    preemption,
    record,
    sharding,
    workdir,
)
from train.broken import BrokenExamples
from train.checkpoint import Checkpoints
from train.evaluate import evaluate
from train.experiment import Experiment, make
from train.init_from import with_weights
from train.preemption import Notice, Preempted
from train.profile import Profile
from train.report import Report
from train.saver import Saver
from train.speed import Watch
from train.step import TrainState
from train.window import Window


@dataclasses.dataclass(frozen=True)
class Life:
    """What a run works with between one start of the program and its end."""

    experiment: Experiment
    batches: Any  # `data.Batches` of the training split
    window: Window
    saver: Saver
    report: Report
    notice: Notice
    watch: Watch
    profile: Profile
    broken: BrokenExamples


def run(config: Any, folder: str | os.PathLike, *, profile: str = "") -> dict[str, float]:
    """Trains what `config` says into `folder`, from where an earlier life of the run stopped.

    Args:
      config: as `configs/` give it.
      folder: of the run.
      profile: "START:STOP", steps to trace; see `train.profile`.

    Returns:
      The final validation metrics.

    Raises:
      ValueError, FileNotFoundError: a setting or input that cannot work, before training starts.
      NonFiniteError: loss or gradient became NaN or infinite; the last good checkpoint stays.
      SaveError: saves failed in a row, or the last one did; the last good checkpoint stays.
      Preempted: the process was told to stop (SIGTERM), and has saved.
    """
    with contextlib.ExitStack() as stack:
        notice = stack.enter_context(preemption.listen())
        experiment = make(config)
        config, model = experiment.config, experiment.task.model
        main_host = jax.process_index() == 0
        folder = workdir.claim(folder, config, write=main_host)
        if main_host:
            record.append(folder, sys.argv[1:])
        checkpoints = stack.enter_context(
            Checkpoints(folder / "checkpoints", keep=config.train.keep)
        )
        batches = stack.enter_context(contextlib.closing(experiment.batches("train", train=True)))
        state, run_state, origin = _start(experiment, checkpoints)
        batches.restore(run_state.get("batches") or batches.state())
        report = stack.enter_context(
            Report(
                folder,
                config.train.steps,
                batch_size=config.data.batch_size,
                start_step=int(state.step),
                shown=experiment.task.shown,
                active=main_host,
                flops_per_example=model_flops.flops_per_example(model),
                devices=experiment.placement.devices,
                peak_flops=hardware.peak_flops(jax.devices()[0], model.spec.operands),
            )
        )
        for damage in checkpoints.damaged:
            report.say(f"passed over the damaged checkpoint {damage.path}: {damage.reason}")
        _introduce(report, experiment, state, origin)
        window = Window(experiment.placement, run_state.get("window"))
        life = Life(
            experiment=experiment,
            batches=batches,
            window=window,
            saver=Saver(experiment, checkpoints, batches, window, report.say),
            report=report,
            notice=notice,
            watch=stack.enter_context(Watch()),
            profile=stack.enter_context(
                Profile(profile, folder, steps=config.train.steps, say=report.say)
            ),
            broken=BrokenExamples(report.say),
        )
        state, results = _train(life, state, evaluated=run_state.get("evaluated", True))
        life.broken.summarise()
        weights = export.weights_of(experiment, state)
        if main_host:
            _finish(experiment, weights, folder, report)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("the run is complete")
    return results


def _start(experiment: Experiment, checkpoints: Checkpoints):
    """Own last checkpoint, else `init_from`, else fresh: (state, the loop's own state, origin)."""
    restored = checkpoints.restore(experiment.abstract_state())
    if restored is not None:
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


def _introduce(report: Report, experiment: Experiment, state: TrainState, origin: str) -> None:
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    layout = experiment.placement
    examples = experiment.info.examples
    hosts = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    report.say(
        f"{experiment.task.name} on {experiment.info.name} "
        f"({examples['train']:,} training, {examples['validation']:,} validation examples), "
        f"{parameters:,} parameters, {layout.name} on {layout.devices} x "
        f"{jax.devices()[0].device_kind}{hosts}, {origin}"
    )
    plans = experiment.task.model.explain(is_training=True)
    for plan in dict.fromkeys(map(str, plans.values())):  # stages of the same plan are told once
        names = [name for name, other in plans.items() if str(other) == plan]
        report.say(f"cross-attend, {', '.join(names)}: {plan}")
    if layout.name == "sharded":
        report.say(sharding.format_table(sharding.sharding_table(state)))


def _train(life: Life, state: TrainState, *, evaluated: bool):
    experiment, report, watch = life.experiment, life.report, life.watch
    config, start = experiment.config.train, int(state.step)
    train_step, eval_step = experiment.train_step(), experiment.eval_step()
    references = experiment.task.references(
        experiment.batches("validation", train=False, whole=True)
    )
    sample = experiment.first_batch() if experiment.task.remark else None
    step, results = start, {}
    pending = not evaluated  # an evaluation that an earlier life had no time for
    while True:
        last = step == config.steps
        evaluated = True
        if last or (step > start and step % config.eval_every == 0) or (step == start and pending):
            jax.block_until_ready(state)  # steps under way are no part of the pause
            with report.paused():
                found = evaluate(experiment, eval_step, state, life.broken, life.notice)
            evaluated = found is not None
            if evaluated:
                results = found | references
                if step > start or pending:  # else its line is there already
                    report.write(step, results, prefix="validation")
                    if sample is not None:
                        with report.paused():
                            weights = export.weights_of(experiment, state)
                            report.say(experiment.task.remark(*weights, sample))
        stopping = life.notice.reached(step)
        if step > start and (last or stopping or step % config.save_every == 0):
            with report.paused():
                life.saver.save(step, state, evaluated=evaluated)
        if stopping and not (last and evaluated):
            life.saver.finish()
            raise Preempted(step)
        if last:
            life.saver.finish()
            return state, results
        life.profile.at(step, state)
        with report.waiting(watch.idle_since):
            batch = next(life.batches)
        life.broken.look("training", life.batches)
        batch = experiment.placement.put(batch)
        if step == start:
            with report.compiling():
                state, sums = jax.block_until_ready(train_step(state, batch))
        else:
            state, sums = train_step(state, batch)
        watch.follow(sums)
        step += 1
        life.window.add(step, sums)
        if step % config.log_every == 0 or step == config.steps:
            life.saver.check()
            rate = float(experiment.schedule(step - 1))
            report.write(step, life.window.take() | {"lr": rate})


def _finish(experiment, weights, folder: pathlib.Path, report: Report) -> None:
    """Exports the model, draws the curves and what the task has to show."""
    task, (params, net_state) = experiment.task, weights
    native.save(folder / "model", task.model, params, net_state, task.usage)
    curves.draw(folder / "metrics.jsonl", folder / "curves.png")
    batch = experiment.first_batch()
    shown = task.show(params, net_state, batch, folder) | task.samples(batch, folder)
    shown = {"model": folder / "model", "curves": folder / "curves.png"} | shown
    for what, path in shown.items():
        report.say(f"{what}: {path}")
