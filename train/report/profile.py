"""A trace of some steps, for TensorBoard's profiler or https://ui.perfetto.dev.

    python -m train ... --profile=100:105

It is written to `profile/` in the run's folder, by host 0 and of its devices. The first step of a
process compiles: a span that holds it shows little else.
"""

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax

FOLDER = "profile"


class Profile:
    """Traces the steps of a span; a context manager that ends a trace under way.

    Args:
      span: "START:STOP": the STOP - START steps from the one after START steps. "" traces nothing.
      folder: of the run.
      steps: of the whole run, to refuse a span beyond it; None: any is good.
      log: takes a line that tells where the trace is.
      active: whether this process traces; by default host 0 alone.

    Raises:
      ValueError: no such span, an empty one, or one that ends after the run.
    """

    def __init__(
        self,
        span: str,
        folder: str | os.PathLike[str],
        *,
        steps: int | None = None,
        log: Callable[[str], None] = lambda line: None,
        active: bool | None = None,
    ):
        self._start, self._stop = _parse(span, steps) if span else (0, 0)
        self._folder, self._log = pathlib.Path(folder) / FOLDER, log
        self._active = jax.process_index() == 0 if active is None else active
        self._began: int | None = None  # the step a trace under way began at

    def at(self, step: int, outputs: Any = None) -> None:
        """Starts or ends the trace where it is time to; call it before each step and at the end.

        Args:
          step: steps done so far. A run that was resumed within the span traces the rest of it.
          outputs: of the step before, which a trace that starts or ends waits for: the device may
            lag behind the host.
        """
        if not self._active:
            return
        if self._began is None and self._start <= step < self._stop:
            jax.block_until_ready(outputs)
            jax.profiler.start_trace(str(self._folder))
            self._began = step
        elif self._began is not None and step >= self._stop:
            jax.block_until_ready(outputs)
            self._end(step)

    def close(self) -> None:
        """Ends a trace under way: the run stopped within the span."""
        if self._began is not None:
            self._end(None)

    def _end(self, step: int | None) -> None:
        began, self._began = self._began, None
        jax.profiler.stop_trace()
        until = "the end of this run" if step is None else str(step)
        self._log(f"profile of steps {began} to {until}: {self._folder}")

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def _parse(span: str, steps: int | None) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+):(\d+)", span)
    if not match:
        raise ValueError(
            f"--profile={span!r} is not START:STOP, two step numbers; write --profile=100:105"
        )
    start, stop = int(match[1]), int(match[2])
    if stop <= start:
        raise ValueError(
            f"--profile={span} contains no steps: STOP must be greater than START; "
            f"write --profile={start}:{start + 5}"
        )
    if steps is not None and stop > steps:
        raise ValueError(
            f"--profile={span} ends after the run, which has train.steps={steps}; "
            f"let STOP be at most {steps}"
        )
    return start, stop
