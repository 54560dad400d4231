"""The commands as a user starts them: a real kill, exit codes, evaluation, export."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from perceiver.weights import mapping, native
from train.report.metrics_log import SPEEDS, read

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETTINGS = [
    "--config.train.steps=300",
    "--config.train.log_every=7",
    "--config.train.save_every=20",
    "--config.train.eval_every=150",
    "--config.model.dropout_rate=0.1",
    "--config.placement=single",
]


def command(workdir, *words, config="digits.py:smoke"):
    line = [sys.executable, "-m", "train", f"--config=configs/{config}", f"--workdir={workdir}"]
    return [*line, *words]


def start(*arguments, **options):
    return subprocess.run(
        *arguments, cwd=ROOT, capture_output=True, text=True, check=False, **options
    )


def numbers(workdir):
    rows = read(workdir / "metrics.jsonl")
    return [{name: x for name, x in row.items() if name not in SPEEDS} for row in rows]


@pytest.mark.slow
def test_a_run_killed_at_random_steps_is_bit_equal_to_one_that_was_not(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = start(command(whole, *SETTINGS))
    assert done.returncode == 0, done.stderr
    draw = random.Random(0)
    kills = 0
    for at in sorted(draw.sample(range(20, 250), 2)):
        child = subprocess.Popen(command(killed, *SETTINGS), cwd=ROOT, stdout=subprocess.DEVNULL)
        while child.poll() is None:
            journal = killed / "metrics.jsonl"
            if journal.exists() and max((r["step"] for r in read(journal)), default=0) >= at:
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        assert child.wait() == -signal.SIGKILL
    assert kills == 2
    done = start(command(killed, *SETTINGS))
    assert "resumed at step" in done.stdout
    assert numbers(killed) == numbers(whole)
    ours, theirs = (mapping.flatten(native.load(f / "model").params) for f in (killed, whole))
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)

    shown = start([sys.executable, "-m", "train.evaluate", str(whole), "--json"])
    assert shown.returncode == 0, shown.stderr
    result, logged = json.loads(shown.stdout), numbers(whole)[-1]
    assert result["step"] == 300
    assert result["loss"] == logged["validation/loss"]
    (whole / "model" / "model.safetensors").unlink()
    assert start([sys.executable, "-m", "train.export", str(whole)]).returncode == 0
    again = mapping.flatten(native.load(whole / "model").params)
    assert all(np.array_equal(again[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.optim.warmup_step=1"], "did you mean optim.warmup_steps"),
        (["--config.train.steps=many"], "steps"),
        (["--config.data.source=digitz"], "data.source 'digitz' is unknown"),
        (["--config.data.source=tfds:mnist"], "mnist"),
    ],
)
def test_a_bad_setting_ends_with_a_message_and_no_run(words, message, tmp_path):
    done = start(command(tmp_path / "run", *words))
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_evaluating_what_is_no_run_says_so(tmp_path):
    done = start([sys.executable, "-m", "train.evaluate", str(tmp_path)])
    assert done.returncode == 2
    assert "is not the folder of a run" in done.stderr
