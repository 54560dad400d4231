"""Launchers that really train: two processes on this machine, through a stub of `ssh`."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.launch.stage import ROOT, SSH_STUB, Stage, end
from tests.train import runs
from train.report import provenance

STEPS = 60
# Notes its process id, which stays Python's; `-m train` becomes the program that does the same, and
# waits for a process that is late.
REAL = f"""#!/bin/sh
for word in "$@"; do
  case $word in --process=*) process=${{word#*=}} ;; esac
done
start=$(ls "$STAGE" | grep -c "^pid.$process.")
echo $$ >"$STAGE/pid.$process.$start.new"
mv "$STAGE/pid.$process.$start.new" "$STAGE/pid.$process.$start"
shift 2
exec {sys.executable} tests/train/together.py "$@"
"""


def steps_told(folder: pathlib.Path) -> list[int]:
    """The steps of the training records, in order."""
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith(b"}")]
    return [row["step"] for row in rows if "lr" in row]


@pytest.mark.slow  # test_ssh.py and test_preemption.py have its parts
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_preempted_run_goes_on_in_the_next_attempt(tmp_path):
    """One of two processes is told to stop: both save, end with 75, and are started again."""
    stage = Stage(tmp_path / "stage")
    stage.program("ssh", SSH_STUB)
    run = tmp_path / "run"
    child = stage.begin(
        ROOT / "launch" / "ssh.sh",
        *("--hosts=localhost,localhost", f"--port={runs.free_port()}", f"--directory={ROOT}"),
        *(f"--python={stage.program('real', REAL)}", "--pause=0", "--attempts=2", "--"),
        *("--config=configs/digits.py:fourier,smoke", f"--workdir={run}"),
        *(f"--config.train.steps={STEPS}", "--config.train.log_every=5"),
        *("--config.model.layers=1", "--config.model.blocks=1"),
        *(f"--config.train.eval_every={STEPS}", f"--config.train.save_every={STEPS}"),
        # One device a process; programs that run for a second need no good code.
        XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        PYTHONPATH=str(ROOT),
    )
    try:
        deadline = time.monotonic() + 300
        while not any(step >= 10 for step in steps_told(run)):
            assert child.poll() is None, child.communicate(timeout=10)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(int(stage.lines("pid.1.0")[0]), signal.SIGTERM)
        out, errors = child.communicate(timeout=300)
    finally:
        end(child)
    assert child.returncode == 0, errors
    assert "with code 75; attempt 2 of 2 follows" in errors
    assert "fresh, seed 0" in out
    assert "resumed at step" in out
    assert steps_told(run) == list(range(5, STEPS + 1, 5))  # none lost, none twice
    first, second = provenance.read(run)
    assert first["hosts"] == second["hosts"] == 2
    assert first["command"] == second["command"]
    assert f"--workdir={run}" in first["command"]
    assert "--processes=2" in first["command"]


def test_slurm_tells_the_processes_who_they_are(tmp_path):
    """What SLURM sets for two tasks is enough for `cluster.join`, without a word from anyone."""
    program = (
        "from train.devices import cluster; way = cluster.join(start_timeout=60); import jax;"
        "print(way, jax.process_index(), jax.process_count(), jax.device_count())"
    )
    port = 0
    while port < 61440:  # JAX takes the port 61440 + job id % 4096
        port = runs.free_port() if port == 0 else port + 1
        port = port if port >= 61440 else 61440 + port % 4096
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")} | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "SLURM_JOB_ID": str(port - 61440),
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment | {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        outputs = [child.communicate(timeout=120)[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait(timeout=10)
    assert [child.returncode for child in children] == [0, 0]
    assert outputs == ["slurm 0 2 4\n", "slurm 1 2 4\n"]
