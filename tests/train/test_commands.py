"""The commands as a user starts them: a real kill, exit codes, evaluation, export."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from configs import digits
from tests.train import runs
from train import evaluate, export
from train.checkpoint import integrity

MODEL = "model/model.safetensors"


def command(workdir, *words):
    config = "--config=configs/digits.py:fourier,smoke"
    return [sys.executable, "-m", "train", config, f"--workdir={workdir}", *words]


def start(*arguments, **options):
    return subprocess.run(
        *arguments, cwd=runs.ROOT, capture_output=True, text=True, check=False, **options
    )


def settings():
    """The words that make the config of the command that of `runs.small`."""
    ours, theirs = (
        config.to_dict() for config in (runs.small(), digits.get_config("fourier,smoke"))
    )
    return [
        f"--config.{section}.{name}={x}"
        for section, fields in ours.items()
        if isinstance(fields, dict)
        for name, x in fields.items()
        if x != theirs[section][name]
    ] + ["--config.placement=single"]


def test_a_run_that_was_killed_is_bit_equal_to_one_that_was_not(trained, tmp_path):
    whole, killed = trained("classification"), tmp_path / "killed"
    words = settings()
    child = subprocess.Popen(command(killed, *words), cwd=runs.ROOT, stdout=subprocess.DEVNULL)
    while child.poll() is None:
        complete = (killed / "checkpoints").glob(f"*/{integrity.CHECKSUMS}")
        if any(path.parent.name.isdigit() for path in complete):
            os.kill(child.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    assert child.wait() == -signal.SIGKILL
    done = start(command(killed, *words))
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in done.stdout
    runs.assert_same_run(killed, whole)
    assert (killed / MODEL).read_bytes() == (whole / MODEL).read_bytes()


def test_a_run_is_evaluated_and_exported_from_its_last_checkpoint(trained, tmp_path, capsys):
    whole = trained("classification")
    copy = shutil.copytree(whole, tmp_path / "copy")
    (copy / MODEL).unlink()
    evaluate.main([str(copy), "--json"])
    found, logged = json.loads(capsys.readouterr().out), runs.results(whole)
    assert found["step"] == 11
    assert {name: found[name] for name in logged} == pytest.approx(logged, rel=1e-6)
    export.main([str(copy)])
    assert "exported step 11" in capsys.readouterr().out
    assert (copy / MODEL).read_bytes() == (whole / MODEL).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.optim.warmup_step=1"], "did you mean optim.warmup_steps"),
        (["--config.data.source=digitz"], "data.source 'digitz' is unknown"),
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
