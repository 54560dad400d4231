"""Runs that are killed at random moments go on, and end bit-equal to an undisturbed one.

SIGKILL comes while a run starts, at a random step, and at each stage of a save; SIGTERM at a random
step. After each the same command is started again. It must resume at the newest complete checkpoint
that existed when it died, and the finished run must equal the undisturbed one in every array of
its state and in all metrics but those of speed.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from train import experiment
from train.checkpoint.checkpoint import Checkpoints
from train.devices.sharding import path_of
from train.report import metrics_log
from train.run import workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHILD = pathlib.Path(__file__).with_name("chaos_child.py")
LIMIT = 420.0  # seconds in which a process must get where it should
STEPS, SAVE_EVERY = 240, 10
STAGES = ("begun", "written", "sealed", "renamed")
WORDS = (
    "--config=configs/digits.py:fourier,smoke",
    f"--config.train.steps={STEPS}",
    f"--config.train.save_every={SAVE_EVERY}",
    "--config.train.log_every=3",
    "--config.train.eval_every=50",
    "--config.model.layers=1",
    "--config.model.blocks=1",
    "--config.train.micro_batches=2",
    "--config.data.batch_size=16",
    "--config.model.dropout_rate=0.1",
    "--config.optim.ema_decay=0.9",
    "--config.optim.lr=3e-3",
)


class Run:
    """A run's folder, and the starts of its one command.

    Args:
      folder: of the run, beside which the logs and compiled programs are kept.
      placement: of the config.
      devices: of the process.
    """

    def __init__(self, folder: pathlib.Path, placement: str, devices: int):
        self.folder, self._words = folder, (*WORDS, f"--config.placement={placement}")
        self._environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(folder.with_name("xla")),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "PYTHONPATH": str(ROOT),
        }
        self._log = folder.with_suffix(".log")

    def start(self, *suicide: str) -> subprocess.Popen:
        """Starts the command; with (stage, number of the save), one that kills itself there."""
        module = [str(CHILD), *suicide] if suicide else ["-m", "train"]
        command = [sys.executable, *module, *self._words, f"--workdir={self.folder}"]
        with self._log.open("wb") as out:
            return subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=out, stderr=out
            )

    def wait_for(self, process: subprocess.Popen, step: int) -> None:
        """Waits until this life has reached a step of its own, or has ended."""
        end = time.monotonic() + LIMIT
        # The journal of an earlier life is cut when this one has started to train.
        while process.poll() is None and (self.resumed() is None or self.last_step() < step):
            assert time.monotonic() < end, f"step {step} was not reached:\n{self.text()}"
            time.sleep(0.05)

    def resumed(self) -> int | None:
        """The step that this life went on from, 0 for a fresh one; None before that is known."""
        found = re.search(r"(?:resumed at step (\d+)|(fresh), seed)", self.text())
        return int(found[1] or 0) if found else None

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def last_step(self) -> int:
        """The step of the last whole line of the journal."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return json.loads(lines[-1])["step"] if lines else 0

    def newest(self) -> int:
        """The step of the newest complete checkpoint."""
        names = [path.name for path in (self.folder / "checkpoints").glob("*")]
        return max((int(name) for name in names if name.isdecimal()), default=0)


def end_of(run: Run, rng: np.random.Generator, moment: str) -> int:
    """One life that is ended at some moment; returns the exit code."""
    if moment in STAGES:
        return run.start(moment, str(rng.integers(1, 3))).wait(LIMIT)
    process = run.start()
    try:
        if moment == "start-up":
            time.sleep(rng.uniform(0, 5))
        else:
            run.wait_for(process, run.newest() + int(rng.integers(1, 25)))
            time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGTERM if moment == "preempted" else signal.SIGKILL)
        return process.wait(LIMIT)
    finally:
        process.kill()
        process.wait()


def arrays(run: Run) -> dict[str, np.ndarray]:
    """The whole last state by path."""
    config = workdir.read(run.folder)
    with config.unlocked():
        config.placement = "single"
    with Checkpoints(run.folder / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(experiment.make(config).abstract_state())
    assert restored.step == STEPS
    leaves = jax.tree_util.tree_leaves_with_path(restored.state)
    return {path_of(keys): np.asarray(x) for keys, x in leaves}


def metrics(run: Run) -> list[dict]:
    rows = metrics_log.read(run.folder / "metrics.jsonl")
    return [{name: x for name, x in row.items() if name not in metrics_log.SPEEDS} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("placement", "devices", "seed"), [("single", 1, 0), ("pmap", 8, 1), ("sharded", 8, 2)]
)
def test_killed_runs_go_on_bit_for_bit(tmp_path, placement, devices, seed):
    rng = np.random.default_rng(seed)
    reference = Run(tmp_path / "reference", placement, devices)
    assert reference.start().wait(LIMIT) == 0, reference.text()

    run = Run(tmp_path / "run", placement, devices)
    moments = ["start-up", "training", "preempted", *STAGES]
    for moment in (moments[i] for i in rng.permutation(len(moments))):
        before = run.newest()
        code = end_of(run, rng, moment)
        report = f"{moment}, code {code}:\n{run.text()[-3000:]}"
        if moment == "preempted":
            assert code == 75, report
            assert run.newest() >= run.last_step(), report  # nothing that was reported is lost
        else:
            assert code == -signal.SIGKILL, report
        if moment != "start-up":
            assert run.resumed() == before, report
        assert run.newest() < STEPS, "every kill must come before the end"
    before = run.newest()
    assert run.start().wait(LIMIT) == 0, run.text()
    assert run.resumed() == before

    theirs, ours = arrays(reference), arrays(run)
    assert theirs.keys() == ours.keys()
    assert [path for path, x in theirs.items() if x.tobytes() != ours[path].tobytes()] == []
    assert metrics(run) == metrics(reference)
