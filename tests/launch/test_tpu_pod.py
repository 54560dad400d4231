"""TPU slices, through a stub of `gcloud`."""

import shutil
import signal
import subprocess
import time

import pytest

from tests.launch.stage import POD_FULL, WORDS, end
from train.guard import exit_codes

# Answers from files of the stage: `states` (one a line; the last stays), and runs commands here.
GCLOUD = """#!/bin/bash
printf '%s\\n' "$*" >>"$STAGE/gcloud"
case "$*" in
  *" describe "*)
    state=$(head -n 1 "$STAGE/states")
    [ "$(wc -l <"$STAGE/states")" = 1 ] || sed -i 1d "$STAGE/states"
    [ "$state" != BROKEN ] || { echo "ERROR: network" >&2; exit 1; }
    [ "$state" != NONE ] || { echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1; }
    echo "$state" ;;
  *" scp "*)
    mkdir -p "$STAGE/home" && cp "$5" "$STAGE/home/perceiver.tar.gz" ;;
  *" ssh "*)
    for word in "$@"; do case $word in --command=*) command=${word#*=} ;; esac; done
    case $command in
      *setup.sh*)
        cd "$STAGE/home" && ${command%% && bash*}
        mkdir -p perceiver && tar -xzf perceiver.tar.gz -C perceiver
        mkdir -p perceiver/.venv/bin && cp "$STAGE/bin/python" perceiver/.venv/bin/ ;;
      *) cd "$STAGE/home" && exec bash -c "$command" ;;
    esac ;;
esac
"""


@pytest.fixture
def cloud(stage):
    if shutil.which("git") is None:
        pytest.skip("needs git")
    stage.program("gcloud", GCLOUD)
    (stage.folder / "states").write_text("PROVISIONING\nACTIVE\n")
    return stage


def verbs(stage):
    """What gcloud was asked for, in order, without the questions for the state."""
    found = [line.split()[3] for line in stage.lines("gcloud")]
    return [verb for verb in found if verb != "describe"]


def test_tpu_dry_run(stage):
    code, out, _ = stage.run(
        *POD_FULL, "--project=p", "--nodes=2", "--spot", "--dry-run", "--", *WORDS
    )
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == (
        "gcloud compute tpus queued-resources create pod --zone=us-x --project=p --node-count=2 "
        "--node-prefix=pod --accelerator-type=v5litepod-64 "
        "--runtime-version=v2-alpha-tpuv5-lite --spot"
    )
    assert "archive --format=tar.gz" in lines[2]
    assert [line.split()[4] for line in lines if " ssh " in line] == ["ssh"] * 4
    assert [line.split()[5] for line in lines if " ssh " in line] == ["pod-0", "pod-1"] * 2
    assert lines[-1].endswith("queued-resources delete pod --zone=us-x --project=p --force --quiet")
    assert "--node-id=pod" in stage.run(*POD_FULL, "--dry-run", "--", *WORDS)[1]


def test_tpu_from_asking_to_giving_back(cloud):
    cloud.play(0, 0, "echo $PERCEIVER_REVISION >$STAGE/revision; exit 75")
    cloud.play(0, 1, "exit 0")
    code, _, errors = cloud.run(*POD_FULL, "--pause=0", "--", *WORDS)
    assert code == 0, errors
    assert verbs(cloud) == ["create", "scp", "ssh", "ssh", "ssh", "delete"]
    assert cloud.lines("words.0.1") == ["-m", "train", *WORDS]
    # What runs there is the commit, whole, and says which.
    assert (cloud.folder / "home" / "perceiver" / "train" / "guard" / "exit_codes.py").is_file()
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=cloud.checkout,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert cloud.lines("revision") == [head.stdout.strip()]


def test_tpu_a_slice_that_went_away_is_asked_for_again(cloud):
    (cloud.folder / "states").write_text("ACTIVE\nSUSPENDED\nACTIVE\n")
    cloud.play(0, 0, "exit 1")  # whatever it ended with: the machines are gone
    cloud.play(0, 1, "exit 0")
    code, _, errors = cloud.run(*POD_FULL, "--pause=0", "--", *WORDS)
    assert code == 0, errors
    life = ["create", "scp", "ssh", "ssh"]
    assert verbs(cloud) == [*life, "delete", *life, "delete"]


def test_tpu_gcloud_without_an_answer_is_no_reason_to_give_a_slice_up(cloud):
    (cloud.folder / "states").write_text("ACTIVE\nBROKEN\n")
    cloud.play(0, 0, "exit 76")
    cloud.play(0, 1, "exit 0")
    code, _, _ = cloud.run(*POD_FULL, "--pause=0", "--keep", "--", *WORDS)
    assert code == 0
    assert not any(" delete " in line for line in cloud.lines("gcloud"))


def test_tpu_an_error_is_final_and_the_slice_goes_back(cloud):
    cloud.play(0, 0, "exit 1")
    code, _, _ = cloud.run(*POD_FULL, "--pause=0", "--", *WORDS)
    assert code == 1
    assert cloud.notes("words.*") == ["words.0.0"]
    assert " delete " in cloud.lines("gcloud")[-1]


def test_tpu_a_request_that_failed_is_told(cloud):
    (cloud.folder / "states").write_text("ACCEPTED\nFAILED\n")
    code, _, errors = cloud.run(*POD_FULL, "--pause=0", "--", *WORDS)
    assert code == 2
    assert "pod is FAILED and will not become ACTIVE" in errors


def test_tpu_sigterm_saves_and_leaves_the_slice(cloud):
    child = cloud.begin(*POD_FULL, "--pause=0", "--", *WORDS)
    try:
        cloud.await_note("words.0.0")
        time.sleep(0.2)
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=30)
    finally:
        end(child)
    assert child.returncode == exit_codes.PREEMPTED
    assert "pod stays" in errors
    assert cloud.notes("told.*") == ["told.0.0"]
    assert not any(" delete " in line for line in cloud.lines("gcloud"))
