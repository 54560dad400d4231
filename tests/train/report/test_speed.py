import math
import threading
import time

import pytest

from train.report.speed import DeviceWatch, Speed


class Clock:
    """Seconds that pass only when told to."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def speed(clock):
    return Speed(total_steps=100, batch_size=32, clock=clock)


def never():
    return -math.inf


def test_waiting_is_told_as_a_share_and_the_rest_per_step(speed, clock):
    speed.begin(0)
    for _ in range(5):
        with speed.waiting(never):
            clock.now += 0.5
        clock.now += 1.5
    found = speed.measure(5)
    assert found == {
        "steps_per_second": 0.5,
        "examples_per_second": 16.0,
        "step_seconds": 1.5,
        "data_wait": 0.25,
    }
    assert speed.summary(5, found) == ["0.5 steps/s", "16 examples/s", "data 25 %", "ETA 3:10"]
    clock.now += 7  # a new window starts without a wait
    assert speed.measure(12)["data_wait"] == 0.0


def test_pauses_and_the_compiling_step_are_in_neither(speed, clock):
    with speed.waiting(never):  # for the first batch of a life, whose step compiles
        clock.now += 100
    clock.now += 50
    speed.begin(1)
    with speed.paused():
        clock.now += 30
    with speed.waiting(never):
        clock.now += 3
    clock.now += 9
    found = speed.measure(4)
    assert (found["data_wait"], found["step_seconds"]) == (0.25, 3.0)


@pytest.mark.parametrize(
    ("idle_since", "counted"),
    [
        (-math.inf, 8.0),  # the device was idle before the wait began
        (1005.0, 3.0),  # it finished in the midst of it
        (math.inf, 0.0),  # it still works
    ],
)
def test_only_an_idle_device_waits(speed, clock, idle_since, counted):
    speed.begin(0)
    with speed.waiting(lambda: idle_since):
        clock.now += 8
    clock.now += 2
    assert speed.measure(2)["data_wait"] == counted / 10
    assert speed.measure(2) == {}


def test_a_wait_before_the_window_does_not_count_more_than_all_of_it(speed, clock):
    assert speed.measure(3) == {}  # starts the clock
    with speed.waiting(never):
        clock.now += 2
    found = speed.measure(4)
    assert (found["data_wait"], found["step_seconds"]) == (1.0, 0.0)


class Outputs:
    """Stands for the arrays of a step under way."""

    def __init__(self):
        self.done = threading.Event()

    def block_until_ready(self):
        self.done.wait(timeout=60)
        return self


def settled(watch):
    deadline = time.monotonic() + 60
    while watch.idle_since() == math.inf and time.monotonic() < deadline:
        time.sleep(0.001)
    return watch.idle_since()


def test_the_watch_knows_when_the_device_became_idle(clock):
    with DeviceWatch(clock) as watch:
        assert watch.idle_since() == -math.inf
        first = Outputs()
        watch.track(first)
        clock.now += 3
        assert watch.idle_since() == math.inf
        first.done.set()
        assert settled(watch) == 1003
        clock.now += 5
        assert watch.idle_since() == 1003


def test_the_host_is_at_most_one_step_ahead():
    with DeviceWatch() as watch:
        steps = [Outputs() for _ in range(3)]
        watch.track(steps[0])
        ahead = threading.Thread(target=lambda: (watch.track(steps[1]), watch.track(steps[2])))
        ahead.start()
        ahead.join(timeout=0.05)
        assert ahead.is_alive()  # the first step is not over
        steps[0].done.set()
        ahead.join(timeout=0.05)
        assert ahead.is_alive()  # nor the second
        steps[1].done.set()
        ahead.join(timeout=60)
        assert not ahead.is_alive()
        steps[2].done.set()


def test_what_went_wrong_on_the_device_is_raised():
    class Broken:
        def block_until_ready(self):
            raise RuntimeError("out of memory")

    with DeviceWatch() as watch:
        watch.track(Broken())
        with pytest.raises(RuntimeError, match="out of memory"):
            settled(watch)
