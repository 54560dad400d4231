"""What a run tells while it runs: a progress line, `metrics.jsonl` and TensorBoard events.

On a terminal the progress line rewrites itself in place; anywhere else (a file, a notebook, a
scheduler's log) each report is a line of its own. Only host 0 reports.
"""

import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from tensorboardX import SummaryWriter

from train.devices import hardware
from train.report.metrics_log import MetricsLog
from train.report.speed import Speed


class RunReport:
    """The outlets of one run; a context manager that closes them.

    Args:
        workdir: The run's folder, made if missing.
        total_steps: The steps of the whole run, for the progress line and the time left.
        batch_size: Examples in a (global) step.
        start_step: The step resumed at; earlier records beyond it are removed or hidden.
        shown: Names of the metrics of the progress line, all if None.
        active: False on every host but the first: nothing is written anywhere.
        flops_per_example: Of training, for `tflops_per_device`; 0 leaves that out.
        devices: Over all hosts, for the same.
        peak_flops: Of one device, for `mfu`; None leaves that out.
        memory: Tells high-water marks, which each training record takes along.
        clock: Seconds, from any origin.
        stream: Where the progress line goes; standard output if None.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        total_steps: int,
        *,
        batch_size: int,
        start_step: int = 0,
        shown: Sequence[str] | None = None,
        active: bool = True,
        flops_per_example: float = 0.0,
        devices: int = 1,
        peak_flops: float | None = None,
        memory: Callable[[], Mapping[str, float]] = hardware.memory,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ):
        self._total_steps, self._start_step = total_steps, start_step
        self._shown, self._active, self._clock = shown, active, clock
        self._console = _Console(sys.stdout if stream is None else stream)
        self._memory = memory
        self._speed = Speed(
            total_steps,
            batch_size,
            clock,
            flops_per_example=flops_per_example,
            devices=devices,
            peak_flops=peak_flops,
        )
        if not active:
            return
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        self._journal = MetricsLog(workdir / "metrics.jsonl", start_step=start_step)
        if self._journal.dropped:
            lines = "1 line" if self._journal.dropped == 1 else f"{self._journal.dropped} lines"
            self.log(
                f"metrics.jsonl: removed {lines} that an earlier process of this run wrote "
                f"after step {start_step} or left incomplete"
            )
        starts = len(list(workdir.glob("events.out.tfevents.*")))
        self._events = SummaryWriter(
            str(workdir),
            purge_step=start_step + 1,
            flush_secs=1,  # a killed run loses a second of events, and no line of the journal
            filename_suffix=f".{starts}",  # a restart within a second must not overwrite the file
        )

    def write(self, step: int, scalars: Mapping[str, float], prefix: str = "") -> None:
        """Reports the scalars of a step to all outlets.

        Args:
            step: Steps done so far.
            scalars: Names to numbers. Those that are not finite are null in the journal and absent
                from TensorBoard.
            prefix: "" for training, which adds what `Speed.measure` and `hardware.memory` tell;
                else the name of a split, put before each name: "validation" gives
                "validation/loss".
        """
        if not self._active:
            return
        speeds = {} if prefix else self._speed.measure(step)
        named = {f"{prefix}/{name}" if prefix else name: x for name, x in scalars.items()} | speeds
        if not prefix:
            named |= self._memory()
        self._journal.append({"step": step} | named)
        for name, value in named.items():
            if math.isfinite(value):
                self._events.add_scalar(name, float(value), step)

        head = f"step {step:>{len(str(self._total_steps))}}/{self._total_steps}"
        if prefix:
            self._console.log("  ".join([head, f"{prefix}:", *_words(scalars)]))
        else:
            names = scalars if self._shown is None else self._shown
            words = _words({name: scalars[name] for name in names if name in scalars})
            self._console.progress("  ".join([head, *words, *self._speed.summary(step, speeds)]))

    def log(self, text: str) -> None:
        """Prints a line that stays, above the progress line."""
        if self._active:
            self._console.log(text)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Wraps the first step of this process, which compiles, and keeps it out of the speeds.

        The step must be over when the block ends (`jax.block_until_ready`).
        """
        began = self._clock()
        yield
        self.log(f"compiled in {self._clock() - began:.1f} s")
        self._speed.begin(self._start_step + 1)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Wraps what is not training, such as an evaluation; the speeds leave its time out.

        Steps still under way on the device must be over before (`jax.block_until_ready`), or their
        time is left out too.
        """
        with self._speed.paused():
            yield

    @contextlib.contextmanager
    def waiting(self, idle_since: Callable[[], float] = lambda: -math.inf) -> Iterator[None]:
        """Wraps the wait for the next batch, which is told as `data_wait`.

        Args:
            idle_since: Asked at the end: the time of this report's clock since which the device has
                had nothing to do (`Watch.idle_since`). By default it never had.
        """
        with self._speed.waiting(idle_since):
            yield

    def close(self) -> None:
        """Ends the progress line and closes the files."""
        if self._active:
            self._console.end()
            self._journal.close()
            self._events.close()

    def __enter__(self) -> "RunReport":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


class _Console:
    """A stream with lines that stay and, on a terminal, one at the bottom that is rewritten."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._live = ""  # the line at the bottom

    def progress(self, text: str) -> None:
        if not self._is_terminal:
            self._print(text + "\n")
            return
        # A line that wraps could not be rewritten.
        text = text[: shutil.get_terminal_size().columns - 1]
        self._print("\r" + text.ljust(len(self._live)))
        self._live = text

    def log(self, text: str) -> None:
        if self._live:
            self._print(f"\r{text.ljust(len(self._live))}\n{self._live}")
        else:
            self._print(text + "\n")

    def end(self) -> None:
        if self._live:
            self._print("\n")
            self._live = ""

    def _print(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _words(scalars: Mapping[str, float]) -> list[str]:
    return [f"{name} {float(value):.4g}" for name, value in scalars.items()]
