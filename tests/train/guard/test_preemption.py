"""SIGTERM: the run saves, says so, and its next life goes on as if nothing had been."""

import os
import signal
import threading

import pytest

import train.evaluate
import train.loop
import train.run.run
from tests.train import runs
from tests.train.runs import small
from train.guard import preemption
from train.guard.preemption import Preempted
from train.run.window import MetricWindow

STEPS = 11


pytestmark = pytest.mark.usefixtures("_shared_programs")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """What a complete run leaves behind is not of interest here, and takes seconds."""
    monkeypatch.setattr(train.loop, "_finish", lambda *_: None)


def tell(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def tell_in_step(step, monkeypatch, number=signal.SIGTERM):
    add = MetricWindow.add

    def telling(self, at, sums):
        add(self, at, sums)
        if at == step:
            tell(number)

    monkeypatch.setattr(MetricWindow, "add", telling)


def tell_in_evaluation(number, monkeypatch):
    """In the first batch of evaluation `number` of this life."""
    calls = []
    put = train.evaluate.metrics.total

    def total(stream):
        calls.append(None)

        def telling():
            for sums in stream:
                if len(calls) == number:
                    tell()
                yield sums

        return put(telling())

    monkeypatch.setattr(train.evaluate.metrics, "total", total)


def test_a_run_that_is_told_to_stop_again_and_again_loses_nothing(trained, tmp_path, monkeypatch):
    for when, number, saved in (
        (tell_in_step, 2, 2),  # between two log lines, before any other save
        (tell_in_evaluation, 1, 4),
        (tell_in_step, 5, 5),  # where it saves anyway; the evaluation at 4 was made up for
        (tell_in_evaluation, 2, STEPS),  # the last one
    ):
        with monkeypatch.context() as patch:
            when(number, patch)
            with pytest.raises(Preempted, match=f"saved at step {saved}") as told:
                train.loop.run(small(), tmp_path)
        assert told.value.step == saved
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert train.loop.run(small(), tmp_path) == runs.results(trained("classification"))
    runs.assert_same_run(tmp_path, trained("classification"))


def test_ctrl_c_saves_and_the_next_one_stops_at_once(tmp_path, monkeypatch, capsys):
    before = signal.default_int_handler
    signal.signal(signal.SIGINT, before)  # the suite may run where it is ignored
    with monkeypatch.context() as patch:
        tell_in_step(2, patch, signal.SIGINT)
        with pytest.raises(Preempted, match=r"stopped \(Ctrl-C\): saved at step 2") as told:
            train.loop.run(small(), tmp_path)
    assert told.value.by_hand
    assert "saving after this step" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before

    def twice(self, at, sums):
        tell(signal.SIGINT)
        tell(signal.SIGINT)

    monkeypatch.setattr(MetricWindow, "add", twice)
    with pytest.raises(KeyboardInterrupt):
        train.loop.run(small(), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]


def test_a_stop_before_the_first_step_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(train.run.run, "_introduce", lambda *_: tell())
    with pytest.raises(Preempted, match="step 0"):
        train.loop.run(small(), tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_second_signal_is_not_caught():
    caught = []
    before = signal.signal(signal.SIGTERM, lambda *_: caught.append(True))
    try:
        with preemption.listen() as signalled:
            assert not signalled.should_stop(0)
            tell()
            assert signalled.should_stop(1)
            assert signalled.is_urgent
            assert caught == []
            tell()
            assert caught == [True]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_does_not_listen():
    handlers = []

    def listen():
        with preemption.listen() as signalled:
            handlers.append((signal.getsignal(signal.SIGTERM), signalled.should_stop(0)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert handlers == [(signal.SIG_DFL, False)]
