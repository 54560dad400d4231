"""`python -m benchmarks.chaos`: runs, kills, sums up. See `benchmarks.chaos`."""

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile
import time

import numpy as np

import benchmarks.chaos
from benchmarks.chaos.difference import compare
from benchmarks.chaos.life import SETUPS
from benchmarks.chaos.trial import Trial


def main() -> None:
    """Runs all setups; prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=benchmarks.chaos.__doc__
    )
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


def _be_a_single_device() -> None:
    """For this process, which only reads what the runs have left."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.pop("XLA_FLAGS", None)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
