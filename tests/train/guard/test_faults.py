"""What goes wrong while a run trains, injected for real: it says so, ends, and can go on.

Faults that other files inject: kills at any moment (test_commands.py, test_killed_save.py),
damaged, missing and unwritable checkpoints (test_checkpoint*.py), a config that changed under a run
(test_loop.py), records that do not decode (test_broken_media.py,
data/).
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import train.loop
from data.batches import Batches
from tests.train import runs
from train import experiment
from train.guard import exit_codes
from train.optim import optimizers
from train.report.metrics_log import read
from train.run.window import MetricWindow, NonFiniteError

TIMEOUT = 240  # seconds that a child process may take on a busy machine
LAST = 11  # step of a run
HOST_TIMEOUT = 25  # seconds until JAX calls a silent process dead


def small(**changes):
    intervals = {"train.log_every": 4, "train.save_every": 3, "train.eval_every": LAST}
    return runs.small(**intervals | changes)


def break_batches(monkeypatch, *numbers):
    """One pixel of these batches of the training split is NaN, whenever they are drawn."""
    intact = Batches.__next__

    def broken(self):
        number = self.state()["batches"]
        batch = intact(self)
        if self.num_batches is None and number in numbers:
            batch["image"][3, 2, 5] = np.nan
        return batch

    monkeypatch.setattr(Batches, "__next__", broken)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """What a complete run leaves behind is not of interest here, and takes seconds."""
    monkeypatch.setattr(train.loop, "_finish", lambda *_: None)


def assert_finite(arrays):
    assert [path for path, x in arrays.items() if not np.isfinite(x).all()] == []


@pytest.mark.usefixtures("_shared_programs")
def test_nan_in_the_data_stops_the_run_and_mended_data_lets_it_go_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_batches(patch, 7)  # step 8
        told = r"not finite at step 8: .*'loss': nan.*the checkpoint of step 6 is kept.*data of"
        with pytest.raises(NonFiniteError, match=told):
            train.loop.run(small(), tmp_path)
    step, arrays = runs.last_checkpoint(tmp_path)
    assert step == 6
    assert_finite(arrays)
    train.loop.run(small(), tmp_path)
    assert runs.last_checkpoint(tmp_path)[0] == LAST


@pytest.mark.usefixtures("_shared_programs")
def test_nan_in_the_data_is_skipped_and_a_kill_changes_nothing(tmp_path, monkeypatch, capsys):
    config = small(**{"guard.non_finite": "skip", "guard.max_skips": 2})
    break_batches(monkeypatch, 4, 5)  # steps 5 and 6, the second is saved
    train.loop.run(config, tmp_path / "whole")
    told = capsys.readouterr().out
    for step, count in ((5, 1), (6, 2)):
        line = f"skipped step {step}: loss and gradient not finite; parameters are unchanged; "
        assert told.count(f"{line}{count} of at most 2") == 1
    by_step = {row["step"]: row for row in runs.rows(tmp_path / "whole") if "loss" in row}
    assert {step: row["skipped"] for step, row in by_step.items()} == {4: 0.0, 8: 0.5, LAST: 0.0}
    assert all(np.isfinite(row["loss"]) for row in by_step.values())
    step, arrays = runs.last_checkpoint(tmp_path / "whole")
    assert step == LAST
    assert_finite(arrays)

    add = MetricWindow.add
    with monkeypatch.context() as patch:

        def killing(self, step, sums):
            if step == 7:  # resumes at 6, within the window that has both skips
                raise KeyboardInterrupt
            add(self, step, sums)

        patch.setattr(MetricWindow, "add", killing)
        with pytest.raises(KeyboardInterrupt):
            train.loop.run(config, tmp_path / "killed")
    train.loop.run(config, tmp_path / "killed")
    runs.assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_nan_from_the_optimiser_is_never_saved(tmp_path, monkeypatch):
    """Losses and gradients of the step that saves are finite, the parameters are not."""
    make = optimizers.make

    def breaking(config):
        def update(updates, count, params=None):
            factor = jnp.where(count == 5, jnp.nan, 1.0)  # in step 6, which saves
            return jax.tree.map(lambda x: x * factor, updates), count + 1

        breaks = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
        return optax.chain(make(config), breaks)

    monkeypatch.setattr(optimizers, "make", breaking)
    with pytest.raises(NonFiniteError, match=r"state of step 6 .*params/.*step 3 is kept.*optim"):
        train.loop.run(small(), tmp_path)
    step, arrays = runs.last_checkpoint(tmp_path, experiment.make(small()).abstract_state())
    assert step == 3
    assert_finite(arrays)


def test_an_unknown_guard_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"guard\.non_finite='ignore'.*stop, skip"):
        train.loop.run(small(**{"guard.non_finite": "ignore"}), tmp_path)


def start(script, workdir, *words, devices=1):
    line = [
        sys.executable,
        "-X",
        "faulthandler",
        *script,
        "--config=configs/digits.py:fourier,smoke",
    ]
    line += ["--config.model.layers=1", "--config.model.blocks=1"]
    line += [f"--workdir={workdir}", "--config.train.steps=100000", "--config.train.save_every=8"]
    return subprocess.Popen(
        [*line, "--config.train.eval_every=100000", *words],
        cwd=runs.ROOT,
        env=runs.of_a_process(devices),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(workdir, step, *children):
    end = time.monotonic() + TIMEOUT
    path = workdir / "metrics.jsonl"
    while not path.exists() or max((row["step"] for row in read(path)), default=0) < step:
        for child in children:
            assert child.poll() is None, child.stderr.read()
        if time.monotonic() > end:
            for child in children:
                child.send_signal(signal.SIGABRT)  # prints its stacks
            told = [child.communicate(timeout=TIMEOUT)[1] for child in children]
            pytest.fail(f"step {step} was not reached in {TIMEOUT} s: " + "\n---\n".join(told))
        time.sleep(0.05)


def children_of(pid):
    """Process ids and command lines of its child processes."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            words = path.with_name("cmdline").read_text()
        except OSError:  # it has ended meanwhile
            continue
        if parent == pid:
            found[int(path.parent.name)] = words
    return found


def stop(*children):
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=TIMEOUT)


def test_an_exception_in_a_data_worker_ends_the_run_with_its_words(tmp_path):
    words = ("--config.placement=single", "--config.data.workers=1")
    child = start(["tests/train/faulty_data.py"], tmp_path, *words)
    try:
        _, errors = child.communicate(timeout=TIMEOUT)
    finally:
        stop(child)
    assert child.returncode == 1
    assert "the disk of example 500 does not answer" in errors
    assert any(path.name.isdecimal() for path in (tmp_path / "checkpoints").iterdir())


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="finds children in /proc")
def test_a_killed_data_worker_ends_the_run_with_a_remedy(tmp_path):
    words = ("--config.placement=single", "--config.data.workers=1")
    child = start(["-m", "train"], tmp_path, *words)
    try:
        wait_for_step(tmp_path, 6, child)
        workers = [pid for pid, line in children_of(child.pid).items() if "spawn_main" in line]
        assert len(workers) == 1
        os.kill(workers[0], signal.SIGKILL)
        _, errors = child.communicate(timeout=TIMEOUT)
    finally:
        stop(child)
    assert child.returncode == 1
    assert "ChildProcessError: one of data.workers=1 processes died" in errors
    assert "exit code -9" in errors
    assert "run the command again" in errors


def two_hosts(workdir):
    """Two processes that train together and have taken some steps."""
    words = [f"--coordinator=localhost:{runs.free_port()}", "--processes=2"]
    words += [f"--host_timeout={HOST_TIMEOUT}", "--config.placement=pmap"]
    hosts = [
        start(["tests/train/together.py"], workdir, *words, f"--process={index}", devices=2)
        for index in range(2)
    ]
    try:
        wait_for_step(workdir, 9, *hosts)
    except BaseException:
        stop(*hosts)
        raise
    return hosts


def test_one_of_two_hosts_is_killed_and_the_other_ends(tmp_path):
    hosts = two_hosts(tmp_path)
    try:
        hosts[1].kill()
        began = time.monotonic()
        _, errors = hosts[0].communicate(timeout=TIMEOUT)
        seconds = time.monotonic() - began
    finally:
        stop(*hosts)
    assert hosts[0].returncode in (exit_codes.HUNG, -signal.SIGABRT)  # a launcher starts both again
    assert seconds < HOST_TIMEOUT + 30
    # What ends it is a race: Gloo finds a closed connection, or JAX no heartbeat; both may abort
    # the process before Python can say more.
    assert re.search(
        r"has been silent for|often because another host died|gloo::|coordination.service", errors
    ), errors
    if "has been silent for" in errors:
        assert "host 1 (" in errors
        assert f"process {hosts[1].pid})" in errors
        assert re.search(r"run the command again on all hosts: it resumes at step \d+", errors)
