"""SIGTERM: the run saves, says so, and its next life goes on as if nothing had been."""

import os
import signal
import threading

import numpy as np
import pytest

import train.evaluate
import train.loop
import train.run.run
from configs import digits
from perceiver.weights import mapping, native
from train.guard import preemption
from train.guard.preemption import Preempted
from train.report.metrics_log import SPEEDS, read
from train.run.window import MetricWindow

STEPS = 8


def config():
    c = digits.get_config("fourier,smoke")
    c.placement = "single"
    c.model.update(dropout_rate=0.1)
    c.optim.update(ema_decay=0.9)
    c.train.update(steps=STEPS, log_every=3, save_every=5, eval_every=4)
    return c


def rows(folder):
    found = read(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in SPEEDS} for row in found]


def weights(folder):
    return mapping.flatten(native.load(folder / "model").params)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train.loop.run(config(), folder)


def tell():
    os.kill(os.getpid(), signal.SIGTERM)


def tell_in_step(step, monkeypatch):
    add = MetricWindow.add

    def telling(self, at, sums):
        add(self, at, sums)
        if at == step:
            tell()

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


@pytest.mark.parametrize(
    ("when", "number", "saved"),
    [
        (tell_in_step, 2, 2),  # between two log lines, before any other save
        (tell_in_step, 5, 5),  # where it saves anyway
        (tell_in_evaluation, 1, 4),
        (tell_in_evaluation, 2, STEPS),  # the last one
    ],
)
def test_a_run_that_is_told_to_stop_loses_nothing(
    whole, when, number, saved, tmp_path, monkeypatch
):
    folder, results = whole
    with monkeypatch.context() as patch:
        when(number, patch)
        with pytest.raises(Preempted, match=f"saved at step {saved}") as told:
            train.loop.run(config(), tmp_path)
    assert told.value.step == saved
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert train.loop.run(config(), tmp_path) == results
    assert rows(tmp_path) == rows(folder)
    ours, theirs = weights(tmp_path), weights(folder)
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)


def test_a_stop_before_the_first_step_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(train.run.run, "_introduce", lambda *_: tell())
    with pytest.raises(Preempted, match="step 0"):
        train.loop.run(config(), tmp_path)
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
