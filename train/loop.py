"""The training loop: the whole story of a run, for every task, model and placement.

The order within a step is an invariant. Evaluation and saving come *before* the next batch is
drawn, and a checkpoint holds state, data position and open metrics at once. So a run that is
killed anywhere and started again goes through the same numbers, bit for bit.
"""

import os
from typing import Any

import jax
from jax.experimental import multihost_utils

from perceiver.weights import native
from train import curves, export
from train.evaluate import evaluate
from train.guard.preemption import Preempted
from train.run.run import Run, open_run
from train.step import TrainState


def run(config: Any, folder: str | os.PathLike, *, profile: str = "") -> dict[str, float]:
    """Trains what `config` says into `folder`, from where an earlier process of the run stopped.

    Args:
      config: as `configs/` give it.
      folder: of the run; a path, or a URL of an object store (see
        `train.checkpoint.remote_folder`).
      profile: "START:STOP", steps to trace; see `train.report.profile`.

    Returns:
      The final validation metrics.

    Raises:
      ValueError, FileNotFoundError: a setting or input that cannot work, before training starts.
      NonFiniteError: a loss, gradient or parameter became NaN or infinite; the last good
        checkpoint stays.
      SaveError: saves failed in a row, or the last one did; the last good checkpoint stays.
      Preempted: the process was told to stop (SIGTERM, Ctrl-C), and has saved.
    """
    with open_run(config, folder, profile) as (run, state):
        state, results = _train(run, state)
        run.watchdog.phase("export", int(state.step))
        run.broken.summarise()
        weights = export.weights_of(run.experiment, state)
        if run.main_host:
            _finish(run, weights)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("the run is complete")
    return results


def _train(run: Run, state: TrainState):
    experiment, report, phase = run.experiment, run.report, run.watchdog.phase
    config, start = experiment.config.train, int(state.step)
    train_step, eval_step = experiment.train_step(), experiment.eval_step()
    references = experiment.task.references(
        experiment.batches("validation", train=False, whole=True)
    )
    sample = experiment.first_batch() if experiment.task.remark else None
    step, results = start, {}
    while True:
        last = step == config.steps
        due = step % config.eval_every == 0 if step > start else run.evaluation_due
        evaluated = True
        if last or due:
            phase("evaluate", step)
            jax.block_until_ready(state)  # steps under way are no part of the pause
            with report.paused():
                scores = evaluate(experiment, eval_step, state, run.broken, run.preemption)
            evaluated = scores is not None
            if evaluated:
                results = scores | references
                if step > start or run.evaluation_due:  # else its line is there already
                    report.write(step, results, prefix="validation")
                    if sample is not None:
                        with report.paused():
                            weights = export.weights_of(experiment, state)
                            report.log(experiment.task.remark(*weights, sample))
        stopping = run.preemption.should_stop(step)
        if step > start and (last or stopping or step % config.save_every == 0):
            phase("save", step)
            with report.paused():
                run.saver.save(step, state, evaluated=evaluated)
                run.remote.push()
        if stopping and not (last and evaluated):
            run.saver.finish()
            raise Preempted(step, by_hand=run.preemption.by_hand)
        if last:
            run.saver.finish()
            return state, results
        run.profile.at(step, state)
        phase("data", step)
        with report.waiting(run.watch.idle_since):
            batch = next(run.batches)
        run.broken.log_new("training", run.batches)
        phase("step", step)
        batch = experiment.placement.put(batch)
        if step == start:
            with report.compiling():
                state, sums = jax.block_until_ready(train_step(state, batch))
        else:
            state, sums = train_step(state, batch)
        run.watch.track(sums)
        step += 1
        run.window.add(step, sums)
        if step % config.log_every == 0 or step == config.steps:
            run.saver.check()
            rate = float(experiment.schedule(step - 1))
            report.write(step, run.window.flush() | {"lr": rate})


def _finish(run: Run, weights) -> None:
    """Exports the model, draws the curves and what the task has to show."""
    task, folder, (params, net_state) = run.experiment.task, run.folder, weights
    native.save(folder / "model", task.model, params, net_state, task.usage)
    curves.draw(folder / "metrics.jsonl", folder / "curves.png")
    batch = run.experiment.first_batch()
    shown = task.show(params, net_state, batch, folder) | task.samples(batch, folder)
    shown = {"model": folder / "model", "curves": folder / "curves.png"} | shown
    for what, path in shown.items():
        run.report.log(f"{what}: {path}")
