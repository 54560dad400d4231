"""Notices steps that take too long, names the host that is behind, and ends a run that hangs.

On several hosts a step is a meeting: if one does not come, all wait, in silence, for as long as the
job is paid for. A thread of each process looks at what its loop is doing, writes it down for the
others (`train.guard.heartbeat`), and compares.

Limits, all of time without a change of phase unless said otherwise:

- A step, from its data to its end and without evaluation and saving, that takes `slow_step` times
  the median of the last ones (and at least 5 s) is told once, with the names of who is behind.
- While a step waits for another host of which nothing has been heard for some 15 s, that host is
  named on standard error: it has probably died. JAX notices by heartbeats of its own, later, and
  aborts this process ("the following tasks are unhealthy", with a number in place of the name).
- Fetching data and stepping end the process after `hang_seconds`, with code 76, the names, and the
  Python stacks of all threads on standard error. The last checkpoint stays.
- An error of one of several processes ends it after two minutes at the latest: the ways out of a
  program (an unfinished save, JAX's own shutdown) wait for the others, which wait for this one.
- What is not a plain step (starting, compiling the first step, evaluation, saving, export) may take
  four times `hang_seconds`: it is one call, however large the model, the split or the state.

The thread runs Python: code that never gives the interpreter back stops it too.
"""

import collections
import faulthandler
import os
import pathlib
import socket
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

import jax

from train.guard import exit_codes, heartbeat
from train.guard.preemption import Preempted

_STEPPING = ("data", "step")
_PATIENCE = 4.0  # of all other phases, and of the first step, in `hang_seconds`
_BEAT = 3.0  # seconds between two heartbeats
_GRACE = 120.0  # seconds that the end of a failed process may take
_ALONE = 10.0  # seconds in a step after which to look whether the others still live
_POLL = 1.0  # seconds between two looks, at most
_LEAST = 5.0  # seconds: no step is slow that takes less
_NAMED = 8  # lost hosts that a line lists
_MEDIAN_OF, _MEDIAN_FROM = 50, 5  # steps: at most, at least


class _Moment(NamedTuple):
    """What the loop is doing: replaced whole, so that the thread never sees half of it."""

    phase: str
    step: int
    since: float  # of the clock
    spent: float  # seconds in this step's phases that have ended
    begun: int  # steps begun in this process


class Watchdog:
    """Watches the loop of this process; a context manager.

    Args:
      folder: of the run; heartbeats are in its folder `hosts`, where several processes run.
      slow_step: how many times the median of the last steps is slow; 0: none is told.
      hang_seconds: after so many without progress the process ends; 0: never.
      log: prints a line. Processes other than the first use standard error, and only for steps
        that their own data make slow: the first tells the rest.
      process: index of this process; JAX's if None.
      processes: of this run; JAX's if None.
      clock: seconds, from any origin.
      leave: ends the process at once, with a code.
      stream: for last words; standard error if None.

    Raises:
      ValueError: a negative limit, or a `slow_step` that would call ordinary steps slow.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        slow_step: float,
        hang_seconds: float,
        log: Callable[[str], None],
        process: int | None = None,
        processes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], Any] = os._exit,
        stream: TextIO | None = None,
    ):
        if slow_step and not slow_step > 1:
            raise ValueError(f"guard.slow_step={slow_step} must be above 1 (0: off), such as 10")
        if not hang_seconds >= 0:
            raise ValueError(f"guard.hang_seconds={hang_seconds} must be at least 0 (0: never)")
        path = pathlib.Path(folder) if isinstance(folder, str) else folder
        self._folder = path / "hosts"
        self._slow_step, self._hang_seconds, self._log = slow_step, hang_seconds, log
        self._process = jax.process_index() if process is None else process
        self._processes = jax.process_count() if processes is None else processes
        self._clock, self._leave, self._stream = clock, leave, stream
        self._born = time.time()
        self._moment = _Moment("start", 0, clock(), 0.0, 0)
        self._durations: collections.deque[float] = collections.deque(maxlen=_MEDIAN_OF)
        self._told = 0  # the step, counted as `begun`, that was called slow last
        self._missed = 0  # the step in which others were missed last
        self._beaten: float | None = None  # when the last heartbeat was written
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def phase(self, name: str, step: int) -> None:
        """Tells what the loop does from now on; costs a microsecond.

        Args:
          name: "data", with which a step begins, "step", or anything that is neither.
          step: steps done so far.
        """
        now, old = self._clock(), self._moment
        spent = old.spent + (now - old.since if old.phase in _STEPPING else 0.0)
        begun = old.begun
        if name == "data":
            if begun > 1:  # the first one compiles
                self._durations.append(spent)
            spent, begun = 0.0, begun + 1
        self._moment = _Moment(name, step, now, spent, begun)

    def check(self) -> None:
        """Compares once; the thread does so every second."""
        now, moment = self._clock(), self._moment
        if self._processes > 1 and (self._beaten is None or now - self._beaten >= _BEAT):
            self._beat(now, moment)
        idle = now - moment.since
        if moment.phase not in _STEPPING:
            self._check_hang(moment, idle, _PATIENCE * self._hang_seconds)
        else:
            compiling = moment.begun == 1
            self._check_hang(moment, idle, (_PATIENCE if compiling else 1) * self._hang_seconds)
            self._check_slow(moment, moment.spent + idle)
            if self._processes > 1 and moment.phase == "step" and idle > _ALONE:
                self._check_others(moment, idle)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._processes > 1 and isinstance(error, jax.errors.JaxRuntimeError):
            # First of all: JAX may abort this process at any moment.
            moment = self._moment
            self._print(
                f"the runtime failed in {moment.phase!r} of step {moment.step}, often because "
                f"another host died: {self._suspects(moment)}. To resume, {self._remedy()}"
            )
        if (
            self._processes > 1
            and isinstance(error, Exception)
            and not isinstance(error, Preempted)
        ):
            last = threading.Timer(_GRACE, self._give_up, (error,))
            last.daemon = True  # a process that ends in time takes it along
            last.start()
        self._stop.set()
        self._thread.join()
        if self._processes > 1:
            self._beat(self._clock(), self._moment._replace(phase="ended"))

    def _run(self) -> None:
        poll = min(_POLL, self._hang_seconds / 4) if self._hang_seconds else _POLL
        while True:
            self.check()
            if self._stop.wait(poll):
                return

    def _beat(self, now: float, moment: _Moment) -> None:
        self._beaten = now
        try:
            heartbeat.write(self._folder, self._own(now, moment))
        except OSError:  # a full disk: the run may go on without, and others call us silent
            return

    def _own(self, now: float, moment: _Moment) -> heartbeat.Heartbeat:
        wall = time.time()
        return heartbeat.Heartbeat(
            process=self._process,
            host=socket.gethostname(),
            pid=os.getpid(),
            phase=moment.phase,
            step=moment.step,
            since=wall - (now - moment.since),
            time=wall,
        )

    def _check_slow(self, moment: _Moment, seconds: float) -> None:
        if not self._slow_step or len(self._durations) < _MEDIAN_FROM:
            return
        median = statistics.median(list(self._durations))
        if seconds <= max(self._slow_step * median, _LEAST) or self._told == moment.begun:
            return
        self._told = moment.begun
        line = (
            f"step {moment.step + 1} has taken {seconds:.0f} s so far, the last "
            f"{len(self._durations)} took {median:.2g} s (median): {self._suspects(moment)}"
        )
        if self._process == 0:
            self._log(line)
        elif moment.phase == "data":
            self._print(line)

    def _check_others(self, moment: _Moment, idle: float) -> None:
        if self._missed == moment.begun:
            return
        lost = heartbeat.unresponsive(self._beats())
        if lost:
            self._missed = moment.begun
            names = "; ".join(beat.describe(time.time()) for beat in lost[:_NAMED])
            self._print(
                f"step {moment.step + 1} has waited {idle:.0f} s for other hosts: {names}. "
                f"If this process ends now, {self._remedy()}"
            )

    def _check_hang(self, moment: _Moment, idle: float, limit: float) -> None:
        if not limit or idle <= limit:
            return
        self._print(
            f"no progress for {idle:.0f} s in {moment.phase!r} of step {moment.step}: "
            f"{self._suspects(moment)}. This process exits with code {exit_codes.HUNG}; "
            f"{self._remedy()} (guard.hang_seconds sets the limit). Stack traces of this process:"
        )
        faulthandler.dump_traceback(self._stream or sys.stderr, all_threads=True)
        self._leave(exit_codes.HUNG)

    def _give_up(self, error: BaseException) -> None:
        traceback.print_exception(error, file=self._stream or sys.stderr)
        self._print(f"waited {_GRACE:.0f} s for other hosts while exiting: this process ends now")
        self._leave(1)

    def _suspects(self, moment: _Moment) -> str:
        if self._processes == 1:
            return f"it has been in {moment.phase!r} for {self._clock() - moment.since:.0f} s"
        return heartbeat.suspects(self._beats(), self._processes)

    def _remedy(self) -> str:
        checkpoints = self._folder.parent / "checkpoints"
        try:
            steps = [int(path.name) for path in checkpoints.iterdir() if path.name.isdecimal()]
        except OSError:
            steps = []
        result = f"it resumes at step {max(steps)}" if steps else "it starts from step 0"
        return f"run the command again on all hosts: {result}"

    def _beats(self) -> dict[int, heartbeat.Heartbeat]:
        beats = heartbeat.read(self._folder, self._processes, self._born)
        return beats | {self._process: self._own(self._clock(), self._moment)}

    def _print(self, text: str) -> None:
        print(text, file=self._stream or sys.stderr, flush=True)
