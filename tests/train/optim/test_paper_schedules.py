"""The papers' ImageNet schedules at their true lengths: 1,281,167 examples, batches of 1,024."""

import math
import types

import numpy as np
import pytest

from configs import common
from perceiver.kinds import released
from train.optim import schedules
from train.resolve import resolve

EPOCH = 1_281_167 / 1024  # steps, not whole


def resolved(epochs, **optim):
    c = common.get_config("classification", released.MODELS["imagenet-fourier"])
    c.data.batch_size = 1024
    c.train.update(steps=0, epochs=epochs)
    c.optim.update(optim)
    examples = {"train": 1_281_167, "validation": 50_000}
    return resolve(c, types.SimpleNamespace(examples=examples, name="imagenet2012"))


@pytest.fixture(scope="module")
def classical():
    """Perceiver, section 4.1."""
    return resolved(120, schedule="step_decay", lr=0.004)


@pytest.fixture(scope="module")
def io():
    """Perceiver IO, appendix A.1."""
    return resolved(110, schedule="constant_cosine", lr=0.002)


def test_runs_are_as_long_as_their_epochs(classical, io):
    assert (classical.train.steps, classical.optim.steps) == (150_136, 150_136)
    assert (io.train.steps, io.optim.steps) == (137_625, 137_625)


def test_the_rate_drops_at_epochs_84_102_and_114(classical):
    schedule = schedules.make(classical.optim)
    for epoch, before, after in [(84, 4e-3, 4e-4), (102, 4e-4, 4e-5), (114, 4e-5, 4e-6)]:
        # to the step: the drop is at the boundary of the epoch, rounded
        boundary = round(epoch * EPOCH)
        assert float(schedule(boundary - 2)) == pytest.approx(before)
        assert float(schedule(boundary + 2)) == pytest.approx(after)
    assert float(schedule(0)) == pytest.approx(4e-3)
    assert float(schedule(classical.train.steps - 1)) == pytest.approx(4e-6)


def test_the_rate_is_flat_for_55_epochs_and_a_cosine_for_55(io):
    schedule = schedules.make(io.optim)
    flat = math.floor(55 * EPOCH)
    for step in (0, 1, 1000, flat - 1):  # no warm-up
        assert float(schedule(step)) == pytest.approx(2e-3)
    for epoch in (60, 70, 82.5, 100, 109.9):
        expected = 2e-3 * (1 + math.cos(math.pi * (epoch - 55) / 55)) / 2
        assert float(schedule(round(epoch * EPOCH))) == pytest.approx(expected, rel=1e-4, abs=1e-8)
    assert float(schedule(round(82.5 * EPOCH))) == pytest.approx(1e-3, rel=1e-4)
    assert float(schedule(io.train.steps - 1)) < 1e-9
    assert float(schedule(io.train.steps)) == 0


def test_the_mean_rate_is_three_quarters_of_the_highest(io):
    # The integral: 55 epochs at the full rate, and a cosine of mean one half.
    schedule = schedules.make(io.optim)
    steps = np.arange(0, io.train.steps, 25)
    total = float(np.mean([schedule(int(step)) for step in steps[:: len(steps) // 400]]))
    assert total == pytest.approx(0.75 * 2e-3, rel=5e-3)
