"""The training loop: the whole story of a run, for every task, model and placement.

The order within a step is an invariant. Evaluation and saving come *before* the next batch is
drawn, and a checkpoint holds state, data position and open metrics at once. So a run that is
killed anywhere and started again goes through the same numbers, bit for bit.
"""

import contextlib
import os
import pathlib
from typing import Any

import jax

from perceiver.weights import native
from train import curves, export, sharding, workdir
from train.broken import BrokenExamples
from train.checkpoint import Checkpoints
from train.evaluate import evaluate
from train.experiment import Experiment, make
from train.init_from import with_weights
from train.report import Report
from train.speed import Watch
from train.step import TrainState
from train.window import NonFiniteError, Window


def run(config: Any, folder: str | os.PathLike) -> dict[str, float]:
    """Trains what `config` says into `folder`, from where an earlier life of the run stopped.

    Returns:
      The final validation metrics.

    Raises:
      ValueError, FileNotFoundError: a setting or input that cannot work, before training starts.
      NonFiniteError: loss or gradient became NaN or infinite; the last good checkpoint stays.
    """
    experiment = make(config)
    config = experiment.config
    main_host = jax.process_index() == 0
    folder = workdir.claim(folder, config, write=main_host)
    with (
        Checkpoints(folder / "checkpoints", keep=config.train.keep) as checkpoints,
        contextlib.closing(experiment.batches("train", train=True)) as batches,
    ):
        state, position, totals, origin = _start(experiment, checkpoints)
        start = int(state.step)
        batches.restore(position or batches.state())
        with Report(
            folder,
            config.train.steps,
            batch_size=config.data.batch_size,
            start_step=start,
            shown=experiment.task.shown,
            active=main_host,
        ) as report:
            for damage in checkpoints.damaged:
                report.say(f"passed over the damaged checkpoint {damage.path}: {damage.reason}")
            _introduce(report, experiment, state, origin)
            window, broken = Window(experiment.placement, totals), BrokenExamples(report.say)
            with Watch() as watch:
                state, results = _train(
                    experiment, state, batches, window, checkpoints, report, watch, broken
                )
            broken.summarise()
            weights = export.weights_of(experiment, state)
            if main_host:
                _finish(experiment, weights, folder, report)
    return results


def _start(experiment: Experiment, checkpoints: Checkpoints):
    """Own last checkpoint, else `init_from`, else fresh: (state, data position, totals, origin)."""
    restored = checkpoints.restore(experiment.abstract_state())
    if restored is not None:
        run_state = restored.data_state
        origin = f"resumed at step {restored.step}"
        return restored.state, run_state["batches"], run_state["window"], origin
    state = experiment.placement.init(experiment.init_state)
    section = experiment.config.init_from
    if not section.source:
        return state, None, None, f"fresh, seed {experiment.config.seed}"
    state = with_weights(experiment, state, section.source, section.ignore)
    origin = f"from {section.source}"
    if section.ignore:
        origin += f" but {', '.join(section.ignore)}"
    return state, None, None, origin


def _introduce(report: Report, experiment: Experiment, state: TrainState, origin: str) -> None:
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    layout = experiment.placement
    examples = experiment.info.examples
    report.say(
        f"{experiment.task.name} on {experiment.info.name} "
        f"({examples['train']:,} training, {examples['validation']:,} validation examples), "
        f"{parameters:,} parameters, {layout.name} on {layout.devices} x "
        f"{jax.devices()[0].device_kind}, {origin}"
    )
    plans = experiment.task.model.explain(is_training=True)
    for plan in dict.fromkeys(map(str, plans.values())):  # stages of the same plan are told once
        names = [name for name, other in plans.items() if str(other) == plan]
        report.say(f"cross-attend, {', '.join(names)}: {plan}")
    if layout.name == "sharded":
        report.say(sharding.format_table(sharding.sharding_table(state)))


def _train(experiment, state, batches, window, checkpoints, report, watch, broken):
    config, start = experiment.config.train, int(state.step)
    train_step, eval_step = experiment.train_step(), experiment.eval_step()
    references = experiment.task.references(
        experiment.batches("validation", train=False, whole=True)
    )
    sample = experiment.first_batch() if experiment.task.remark else None
    step, results = start, {}
    while True:
        last = step == config.steps
        if step > start or last:
            if last or step % config.eval_every == 0:
                jax.block_until_ready(state)  # steps under way are no part of the pause
                with report.paused():
                    results = evaluate(experiment, eval_step, state, broken) | references
                if step > start:  # else its line is there already
                    report.write(step, results, prefix="validation")
                    if sample is not None:
                        with report.paused():
                            weights = export.weights_of(experiment, state)
                            report.say(experiment.task.remark(*weights, sample))
            if step > start and (last or step % config.save_every == 0):
                _check(window, checkpoints)  # what is not finite is never saved
                with report.paused():
                    _save(experiment, state, batches, window, checkpoints, step)
        if last:
            checkpoints.wait()
            return state, results
        with report.waiting(watch.idle_since):
            batch = next(batches)
        broken.look("training", batches)
        batch = experiment.placement.put(batch)
        if step == start:
            with report.compiling():
                state, sums = jax.block_until_ready(train_step(state, batch))
        else:
            state, sums = train_step(state, batch)
        watch.follow(sums)
        step += 1
        window.add(step, sums)
        if step % config.log_every == 0 or step == config.steps:
            _check(window, checkpoints)
            rate = float(experiment.schedule(step - 1))
            report.write(step, window.take() | {"lr": rate})


def _check(window: Window, checkpoints: Checkpoints) -> None:
    try:
        window.totals()
    except NonFiniteError as error:
        checkpoints.wait()
        good = max(checkpoints.steps(), default=None)
        kept = (
            f"the checkpoint of step {good} is kept"
            if good is not None
            else "no checkpoint was saved yet"
        )
        raise NonFiniteError(
            f"loss or gradient is not finite at {error}; {kept}. Lower optim.lr, set "
            "optim.clip_norm, or look at the data of that step; then start the command again"
        ) from None


def _save(experiment, state, batches, window, checkpoints, step) -> None:
    run_state = {"batches": batches.state(), "window": window.totals()}
    canonical = experiment.placement.canonical(state)
    checkpoints.save(step, canonical, run_state, experiment.config.to_dict())


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
