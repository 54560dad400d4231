"""How fast a run is, the share of the devices' peak that is, and how long they waited for data."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

Clock = Callable[[], float]  # seconds, from any origin


class Speed:
    """Times the steps since the last measurement, and tells the time left.

    Args:
        total_steps: The steps of the whole run.
        batch_size: Examples in a (global) step.
        clock: Seconds, from any origin.
        flops_per_example: Of training (`model_flops`); 0 where they are not known.
        devices: Over all hosts.
        peak_flops: FLOP/s of one device (`hardware`); None where it is not known.
    """

    def __init__(
        self,
        total_steps: int,
        batch_size: int,
        clock: Clock,
        *,
        flops_per_example: float = 0.0,
        devices: int = 1,
        peak_flops: float | None = None,
    ):
        self._total_steps, self._batch_size, self._clock = total_steps, batch_size, clock
        self._flops_of_device, self._peak_flops = flops_per_example / devices, peak_flops
        self._first: tuple[int, float] | None = None  # step and time after the compiling step
        self._last: tuple[int, float] | None = None  # step and time of the last measurement
        self._pause = self._wait = 0.0  # seconds of them since then

    def begin(self, step: int) -> None:
        """Counts from here."""
        self._first = self._last = (step, self._clock())
        self._pause = self._wait = 0.0

    def measure(self, step: int) -> dict[str, float]:
        """The speeds since the last measurement; none at the first, or when no step was made.

        `data_wait` is the share of the time in which the device had nothing to do because the next
        batch was not there, `step_seconds` the rest of the time, per step. `mfu` is the share of
        the devices' peak that went into the model; the wait for data counts against it.
        """
        if self._last is None:
            self.begin(step)
            return {}
        steps, seconds = step - self._last[0], self._clock() - self._last[1] - self._pause
        if steps <= 0 or seconds <= 0:
            return {}
        wait = min(self._wait, seconds)
        self._last, self._pause, self._wait = (step, self._clock()), 0.0, 0.0
        speed = steps / seconds
        return {
            "steps_per_second": speed,
            "examples_per_second": speed * self._batch_size,
            "step_seconds": (seconds - wait) / steps,
            "data_wait": wait / seconds,
            **self._utilisation(speed * self._batch_size),
        }

    def _utilisation(self, examples_per_second: float) -> dict[str, float]:
        flops = self._flops_of_device * examples_per_second
        rates = {"tflops_per_device": flops / 1e12} if flops else {}
        return rates | ({"mfu": flops / self._peak_flops} if flops and self._peak_flops else {})

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Wraps what counts as no time at all."""
        began = self._clock()
        yield
        self._pause += self._clock() - began

    @contextlib.contextmanager
    def waiting(self, idle_since: Clock) -> Iterator[None]:
        """Wraps a wait for data; only the time after `idle_since()`, asked at its end, counts."""
        began = self._clock()
        yield
        self._wait += max(0.0, self._clock() - max(began, idle_since()))

    def summary(self, step: int, speeds: Mapping[str, float]) -> list[str]:
        """The speeds and the time left for the progress line; the latter counts the pauses too."""
        if not speeds:
            return []
        pace = (self._clock() - self._first[1]) / (step - self._first[0])  # seconds a step
        return [
            f"{speeds['steps_per_second']:.3g} steps/s",
            f"{speeds['examples_per_second']:.4g} examples/s",
            *([f"{100 * speeds['mfu']:.0f} % MFU"] if "mfu" in speeds else []),
            f"data {100 * speeds['data_wait']:.0f} %",
            f"ETA {_duration(pace * (self._total_steps - step))}",
        ]


class DeviceWatch:
    """Knows since when the device has had nothing to do; a context manager.

    JAX lets the host run ahead of the device. Time spent in waiting for a batch costs nothing while
    the device works on the one before, and all of it once that is done. A thread waits for each
    step and notes the moment.

    It also keeps the host at most one step ahead: batches that wait on the device for their turn
    take its memory.
    """

    def __init__(self, clock: Clock = time.monotonic):
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self._finished: Future[float] | None = None  # when the newest step was over

    def track(self, outputs: Any) -> None:
        """Watches a step from its outputs, after waiting for the step before it."""
        if self._finished is not None:
            self._finished.result()
        self._finished = self._thread.submit(self._finish, outputs)

    def idle_since(self) -> float:
        """When the device finished its work: -inf before any, inf while it works."""
        if self._finished is None:
            return -math.inf
        return self._finished.result() if self._finished.done() else math.inf

    def _finish(self, outputs: Any) -> float:
        jax.block_until_ready(outputs)
        return self._clock()

    def __enter__(self) -> "DeviceWatch":
        return self

    def __exit__(self, *exception) -> None:
        self._thread.shutdown()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
