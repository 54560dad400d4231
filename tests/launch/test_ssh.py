"""Plain SSH: hosts that end in every way they can."""

import signal
import time

import pytest

from tests.launch.stage import ROOT, SSH, WORDS, end, is_alive
from train.guard import exit_codes


def train_by_ssh(stage, *options):
    return [*SSH, f"--python={stage.python}", f"--directory={ROOT}", "--pause=0", *options]


def test_ssh_dry_run(stage):
    code, out, _ = stage.run(*SSH, "--port=77", "--directory=/a b", "--dry-run", "--", *WORDS)
    assert code == 0
    first, second = out.splitlines()
    assert first.startswith("ssh -o BatchMode=yes")
    assert " me@one " in first
    assert " two " in second
    for index, line in enumerate((first, second)):
        assert f"--coordinator=one:77 --processes=2 --process={index}'" in line
    assert stage.notes("ssh") == []


def test_ssh_trains_on_all_hosts(stage):
    for process in (0, 1):
        stage.play(process, 0, "exit 0")
    code, _, errors = stage.run(*train_by_ssh(stage), "--", *WORDS)
    assert (code, errors) == (0, "")
    assert sorted(stage.lines("ssh")) == ["me@one", "two"]
    for process in (0, 1):
        assert stage.lines(f"words.{process}.0") == [
            *("-m", "train", *WORDS),
            *("--coordinator=one:12355", "--processes=2", f"--process={process}"),
        ]


def test_ssh_an_error_stops_the_others_and_is_final(stage):
    stage.play(1, 0, "sleep 0.3; exit 1")
    code, _, errors = stage.run(*train_by_ssh(stage), "--", *WORDS)
    assert code == 1
    assert "host two (process 1) ended first, with code 1" in errors
    assert "Not restarted" in errors
    assert stage.notes("told.*") == ["told.0.0"]
    assert stage.notes("words.*") == ["words.0.0", "words.1.0"]


@pytest.mark.parametrize("end", ["exit 76", "kill -KILL $$"])
def test_ssh_starts_all_again(stage, end):
    stage.play(0, 0, f"sleep 0.3; {end}")
    for process in (0, 1):
        stage.play(process, 1, "exit 0")
    code, _, errors = stage.run(*train_by_ssh(stage), "--", *WORDS)
    assert code == 0
    assert "attempt 2 of 20 follows" in errors
    assert stage.notes("told.*") == ["told.1.0"]
    assert stage.notes("words.*") == ["words.0.0", "words.0.1", "words.1.0", "words.1.1"]


def test_ssh_a_preempted_host_leaves_the_others_time_to_save(stage):
    stage.play(0, 0, "sleep 0.3; exit 75")
    stage.play(1, 0, "sleep 1; exit 75")
    for process in (0, 1):
        stage.play(process, 1, "exit 0")
    assert stage.run(*train_by_ssh(stage), "--", *WORDS)[0] == 0
    assert stage.notes("told.*") == []


def test_ssh_but_not_for_ever(stage):
    stage.play(0, 0, "sleep 0.3; exit 75")
    for process in (0, 1):
        stage.play(process, 1, "exit 0")
    assert stage.run(*train_by_ssh(stage, "--grace=1"), "--", *WORDS)[0] == 0
    assert stage.notes("told.*") == ["told.1.0"]


def test_ssh_gives_up_after_the_last_attempt(stage):
    for start in (0, 1):
        stage.play(0, start, "exit 76")
    code, _, errors = stage.run(*train_by_ssh(stage, "--attempts=2"), "--", *WORDS)
    assert code == 76
    assert "that was the last of 2 attempts" in errors
    assert len(stage.notes("words.0.*")) == 2


def test_ssh_a_host_that_does_not_listen_is_killed(stage):
    stage.play(0, 0, "trap '' TERM; echo $$ >$STAGE/stubborn; while :; do sleep 0.05; done")
    stage.play(1, 0, "sleep 0.5; exit 1")
    code, _, _ = stage.run(*train_by_ssh(stage, "--grace=1"), "--", *WORDS)
    assert code == 1
    assert not is_alive(int(stage.lines("stubborn")[0]))


def test_ssh_sigterm_stops_all_and_nothing_starts_again(stage):
    child = stage.begin(*train_by_ssh(stage), "--", *WORDS)
    try:
        for process in (0, 1):
            stage.await_note(f"words.{process}.0")
        time.sleep(0.2)  # the stand-in listens
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=30)
    finally:
        end(child)
    assert child.returncode == exit_codes.PREEMPTED
    assert "stopped; host" in errors
    assert stage.notes("told.*") == ["told.0.0", "told.1.0"]
    assert len(stage.notes("words.*")) == 2


def test_ssh_hosts_stop_when_the_launcher_is_killed(stage):
    """And nothing that they say meanwhile makes them fail before they have saved."""
    for process in (0, 1):
        stage.play(process, 0, "while echo; do sleep 0.05; done; touch $STAGE/broken; exit 1")
    child = stage.begin(*train_by_ssh(stage), "--", *WORDS)
    try:
        for process in (0, 1):
            stage.await_note(f"words.{process}.0")
        time.sleep(0.2)
        child.kill()
        child.stdout.close()
        for process in (0, 1):
            stage.await_note(f"told.{process}.0", timeout=10)
    finally:
        end(child)
    assert stage.notes("broken") == []
