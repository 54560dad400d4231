"""Preemption: a run that gets SIGTERM, or Ctrl-C, saves at the next step and ends.

Its exit code says why: after SIGTERM a launcher starts it again, after Ctrl-C nobody should.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):  # noqa: N818 - nothing went wrong
    """The run was told to stop; everything up to `step` is saved."""

    def __init__(self, step: int, *, by_hand: bool = False):
        how = "stopped (Ctrl-C)" if by_hand else "preempted (SIGTERM)"
        super().__init__(f"{how}: saved at step {step}; run the same command to resume")
        self.step = step
        self.by_hand = by_hand


class Preemption:
    """Whether this run has been asked to stop. Made by `listen`.

    In one process the signal itself decides. Of several, JAX's runtime catches it and lets
    all agree on a step that none has passed, since all of them must take part in the save.
    """

    def __init__(self):
        self._requested = threading.Event()
        self.by_hand = False  # whether by Ctrl-C

    def request(self, *_: object) -> None:
        """Requests a stop of this process (a signal handler); the runtime does so for several."""
        self._requested.set()

    @property
    def is_urgent(self) -> bool:
        """Whether to drop what can be done again, such as an evaluation; one process only."""
        return self._requested.is_set() and jax.process_count() == 1

    def should_stop(self, step: int) -> bool:
        """Returns whether `step` is the one to save and stop at, the same on all hosts.

        Every host must ask at every step, once.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested.is_set()


@contextlib.contextmanager
def listen() -> Iterator[Preemption]:
    """Listens for SIGTERM, which schedulers send some time before they kill, and for Ctrl-C.

    A second signal acts as if nobody listened. Outside of the main thread Python allows no handler:
    the signal then ends the process, as it always does; so does Ctrl-C on one of several hosts.
    """
    preemption = Preemption()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield preemption
        return

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    if before[signal.SIGINT] == signal.SIG_IGN:  # in the background of a script
        del before[signal.SIGINT]

    def as_before(*numbers):
        for number in numbers:
            # None: it was not set from Python
            signal.signal(number, before[number] or signal.SIG_DFL)

    def handle(number, frame):
        del frame
        as_before(number)
        preemption.request()
        if number == signal.SIGINT:
            preemption.by_hand = True
            print(
                "\nCtrl-C: saving after this step; press it again to stop at once, without saving",
                file=sys.stderr,
                flush=True,
            )

    for number in before:
        signal.signal(number, handle)
    try:
        yield preemption
    finally:
        as_before(*before)
