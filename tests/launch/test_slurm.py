"""SLURM, through stubs of `srun` and `scontrol`."""

import re
import signal
import time

import pytest

from tests.launch.stage import BATCH, LAUNCH, ROOT, WORDS, end
from train.guard import exit_codes

SRUN = """#!/bin/sh
for word in "$@"; do echo "$word"; done >>"$STAGE/srun"
env | grep -E '^(JAX_LOCAL|SRUN_)' >>"$STAGE/srun"
while [ "${1#--}" != "$1" ]; do shift; done
pids=
trap 'for pid in $pids; do kill -TERM $pid; done' TERM
for task in 0 1; do
  SLURM_PROCID=$task "$@" &
  pids="$pids $!"
done
highest=0
for pid in $pids; do
  code=200
  while :; do
    wait $pid
    code=$?
    kill -0 $pid 2>/dev/null || break
  done
  [ $code -le $highest ] || highest=$code
done
exit $highest
"""


@pytest.fixture
def cluster(stage):
    stage.program("srun", SRUN)
    stage.program("scontrol", '#!/bin/sh\necho "$@" >>"$STAGE/scontrol"\n')
    stage.environment |= {
        "SLURM_JOB_ID": "7",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_CPUS_PER_TASK": "3",
    }
    return stage


def test_slurm_dry_run(stage):
    code, out, _ = stage.run(*BATCH, "--grace=9", "--dry-run", "--", *WORDS)
    assert code == 0
    assert out.startswith("srun --kill-on-bad-exit=0 --wait=9 .venv/bin/python -m train --config=")


def test_slurm_settings_of_the_job():
    text = (LAUNCH / "slurm.sbatch").read_text()
    directives = re.findall(r"^#SBATCH (\S+)$", text, re.MULTILINE)
    assert {"--requeue", "--signal=B:TERM@120", "--open-mode=append"} <= set(directives)
    first_command = text.index("set -euo")
    assert text.rindex("#SBATCH") < first_command  # SLURM reads no further


def batch(stage, *options):
    return [*BATCH, f"--python={stage.python}", *options, "--", *WORDS]


def test_slurm_trains(cluster):
    for task in (0, 1):
        cluster.play(task, 0, "exit 0")
    code, _, errors = cluster.run(*batch(cluster))
    assert (code, errors) == (0, "")
    assert cluster.lines("words.1.0") == ["-m", "train", *WORDS]
    # One task a node has all its GPUs, and srun is told the number of cores.
    assert {"JAX_LOCAL_DEVICE_IDS=0,1,2,3", "SRUN_CPUS_PER_TASK=3"} <= set(cluster.lines("srun"))
    assert cluster.notes("scontrol") == []


def test_slurm_one_task_a_gpu_lets_jax_choose(cluster):
    for task in (0, 1):
        cluster.play(task, 0, "exit 0")
    cluster.run(*batch(cluster), SLURM_NTASKS_PER_NODE="4")
    assert not any(line.startswith("JAX_LOCAL") for line in cluster.lines("srun"))


@pytest.mark.parametrize(
    ("end", "restarts", "expected", "queued"),
    [
        ("exit 75", "0", 75, True),
        ("exit 76", "3", 76, True),
        ("kill -KILL $$", "0", 137, True),
        ("exit 75", "4", 75, False),  # the fifth start, of five
        ("exit 1", "0", 1, False),
    ],
)
def test_slurm_queues_again_what_can_go_on(cluster, end, restarts, expected, queued):
    for task in (0, 1):
        cluster.play(task, 0, end)
    code, _, errors = cluster.run(*batch(cluster, "--attempts=5"), SLURM_RESTART_COUNT=restarts)
    assert code == expected
    assert cluster.lines("scontrol") == ["requeue 7"] * queued
    assert ("queued again for attempt" in errors) == queued


def test_slurm_sigterm_reaches_every_task(cluster):
    child = cluster.begin(*batch(cluster))
    try:
        for task in (0, 1):
            cluster.await_note(f"words.{task}.0")
        time.sleep(0.2)
        child.send_signal(signal.SIGTERM)  # as --signal=B:TERM@120 does, to the batch shell alone
        child.communicate(timeout=30)
    finally:
        end(child)
    assert child.returncode == exit_codes.PREEMPTED
    assert cluster.notes("told.*") == ["told.0.0", "told.1.0"]
    assert cluster.lines("scontrol") == ["requeue 7"]
