import math

import numpy as np
import pytest

from train.guard.spikes import MEMORY, SpikeDetector


def feed(spikes, losses, first=1):
    """Steps that were told, with their lines."""
    lines = {step: spikes.check(step, float(x)) for step, x in enumerate(losses, start=first)}
    return {step: line for step, line in lines.items() if line}


def noisy(rng, size, mean=2.0):
    return mean + 0.1 * rng.standard_normal(size)


def test_a_spike_is_told_with_its_height(rng):
    losses = noisy(rng, 300)
    last = losses[-MEMORY:]
    median = np.median(last)
    height = (12.3 - median) / (1.4826 * np.median(abs(last - median)))
    told = feed(SpikeDetector(10.0), [*losses, 12.3, 2.0])
    assert told == {
        301: f"loss 12.3 at step 301 is {height:.3g} deviations above the median {median:.4g} "
        "of the last 200 steps"
    }


def test_ordinary_noise_and_a_falling_loss_are_no_spikes(rng):
    assert feed(SpikeDetector(10.0), noisy(rng, 5000)) == {}
    assert feed(SpikeDetector(10.0), 5 * np.exp(-np.arange(2000) / 300) + noisy(rng, 2000)) == {}


def test_a_plateau_is_told_once_and_becomes_normal(rng):
    spikes = SpikeDetector(10.0)
    feed(spikes, noisy(rng, 250))
    assert list(feed(spikes, noisy(rng, 400, mean=9.0), first=251)) == [251]
    assert list(feed(spikes, [40.0], first=651)) == [651]


def test_two_spikes_are_told_apart(rng):
    spikes = SpikeDetector(10.0)
    feed(spikes, noisy(rng, 100))
    assert list(feed(spikes, [9.0, 9.5, 2.0, 2.0, 8.0], first=101)) == [101, 105]


def test_the_first_twenty_steps_say_nothing(rng):
    losses = noisy(rng, 19)
    assert feed(SpikeDetector(3.0), [*losses, 1e6]) == {}
    assert list(feed(SpikeDetector(3.0), [*losses, 2.0, 1e6])) == [21]


def test_losses_that_hardly_move_have_a_least_spread():
    assert feed(SpikeDetector(10.0), [1.0] * 50 + [1.001, 1.005]) == {}
    assert list(feed(SpikeDetector(10.0), [1.0] * 50 + [1.02])) == [51]
    assert list(feed(SpikeDetector(10.0), [0.0] * 50 + [1e-3])) == [51]


def test_what_is_not_finite_is_left_to_others(rng):
    spikes = SpikeDetector(10.0)
    assert feed(spikes, [*noisy(rng, 30), math.nan, math.inf, *noisy(rng, 30)]) == {}


def test_off_and_nonsense():
    assert feed(SpikeDetector(0.0), [1.0] * 50 + [1e9]) == {}
    with pytest.raises(ValueError, match=r"guard\.spike=-1"):
        SpikeDetector(-1.0)
    with pytest.raises(ValueError, match=r"guard\.spike=nan"):
        SpikeDetector(math.nan)
