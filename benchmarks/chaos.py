"""Kills runs at random moments, starts them again, and checks that nothing is lost or changed.

    python -m benchmarks.chaos --kills 100 [--seed 0] [--setups single,pmap,...] [--folder DIR]

Runs of a tiny digits model (dropout, averaged parameters, micro-batches) through the true `python
-m train`: in one process (one device, eight by `pmap`, eight by `sharded`), and in two with four
devices each. SIGKILL and SIGTERM come while a run starts, at a random step, and inside a save; of
two processes to one or to both. After each the same command is started again. Checked:

- it resumes at the newest complete checkpoint that lay there when it died, never before;
- SIGTERM, once the program listens, ends it with code 75 and loses no step;
- of two processes the one that is left ends with an error that says so, and does not hang;
- at the end the whole state (parameters, optimiser, average) and all metrics but those of time are
  bit-equal to those of a run of the same setup that nobody disturbed.

A line tells each kill and a table sums up. A violation is told at once, and makes the exit code 1.
"""

import argparse
import contextlib
import functools
import os
import pathlib
import sys
import tempfile
import time

import numpy as np

from benchmarks.chaos_life import SETUPS
from benchmarks.chaos_trial import Trial


def main() -> None:
    """Runs all setups; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kills", type=int, default=100, help="over all setups")
    parser.add_argument("--seed", type=int, default=0, help="of kinds and moments of kills")
    names = [setup.name for setup in SETUPS]
    parser.add_argument("--setups", default=",".join(names), help="of %(default)s")
    parser.add_argument("--steps", type=int, help="of each run; by default the setup's own")
    parser.add_argument("--folder", type=pathlib.Path, help="keeps the runs there; must be new")
    options = parser.parse_args()
    chosen = [setup for setup in SETUPS if setup.name in options.setups.split(",")]
    if not chosen or options.kills < len(chosen):
        parser.error(f"choose setups of {', '.join(names)}, and at least one kill for each")
    _be_a_single_device()
    began, trials = time.monotonic(), []
    with contextlib.ExitStack() as stack:
        folder = options.folder or pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        )
        for index, setup in enumerate(chosen):
            rng = np.random.default_rng([options.seed, index])
            steps = options.steps or setup.steps
            trial = Trial(setup, folder / setup.name, rng, steps, compare, _say)
            trials.append(trial)
            trial.reference()
            share = options.kills * (index + 1) // len(chosen) - options.kills * index // len(
                chosen
            )
            trial.disturb(share)
    print(f"\n{table(trials)}\n\n{(time.monotonic() - began) / 60:.0f} minutes", flush=True)
    sys.exit(1 if any(trial.violations for trial in trials) else 0)


def table(trials: list[Trial]) -> str:
    """What was done to the runs and what came of it, as Markdown."""
    head = ("setup", "kills", "restarts", "worst loss, steps", "outlived, s", "bit-equal runs")
    rows = [head, ("---",) * len(head)]
    for trial in trials:
        outlived = f"{max(trial.outlived):.0f}" if trial.outlived else "-"
        figures = (trial.kills.total(), trial.restarts, max(trial.lost, default=0), outlived)
        rows.append((trial.setup.name, *figures, f"{trial.equal}/{trial.runs}"))
    kinds = sum((trial.kills for trial in trials), type(trials[0].kills)())
    rows += [(), ("kill", "times"), ("---", "---")]
    rows += sorted((str(kill), count) for kill, count in kinds.items())
    lines = [f"| {' | '.join(map(str, row))} |" if row else "" for row in rows]
    found = sum(len(trial.violations) for trial in trials)
    total = f"{kinds.total()} kills, {sum(trial.runs for trial in trials)} runs, "
    busy = sum(trial.overloaded for trial in trials)
    rest = f"; {busy} more deaths by Gloo's timeout at a start" if busy else ""
    return "\n".join([*lines, "", total + f"{found} violations{rest}"])


def compare(reference: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """What differs, in any bit, between two complete runs."""
    ours, theirs = _arrays(reference), _arrays(folder)
    if ours.keys() != theirs.keys():
        return [f"arrays {sorted(ours.keys() ^ theirs.keys())} are of one run only"]
    differing = [path for path, x in ours.items() if x.tobytes() != theirs[path].tobytes()]
    found = [f"{len(differing)} arrays differ: {', '.join(differing[:5])}"] if differing else []
    rows = zip(_rows(reference), _rows(folder), strict=False)
    lines = [f"metrics differ: {mine}, {other}" for mine, other in rows if mine != other]
    if len(_rows(reference)) != len(_rows(folder)):
        lines.append("metrics.jsonl has another number of lines")
    return found + lines[:3]


def _be_a_single_device() -> None:
    """For this process, which only reads what the runs have left."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.pop("XLA_FLAGS", None)


@functools.lru_cache(maxsize=2)
def _arrays(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The whole last state by path."""
    import jax  # after the device count is settled

    from train import experiment, workdir
    from train.checkpoint import Checkpoints
    from train.sharding import path_of

    config = workdir.read(folder)
    with config.unlocked():
        config.placement = "single"
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(experiment.make(config).abstract_state())
    if restored is None or restored.step != config.train.steps:
        raise ValueError(f"{folder} holds no complete run")
    leaves = jax.tree_util.tree_leaves_with_path(restored.state)
    return {path_of(keys): np.asarray(x) for keys, x in leaves}


def _rows(folder: pathlib.Path) -> list[dict]:
    from train.journal import SPEEDS, read

    rows = read(folder / "metrics.jsonl")
    return [{name: x for name, x in row.items() if name not in SPEEDS} for row in rows]


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
