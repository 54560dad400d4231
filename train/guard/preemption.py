"""Preemption: a run that gets SIGTERM saves at the next step and exits with a code that says so."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):  # noqa: N818 - nothing went wrong
    """The run was preempted; everything up to `step` is saved."""

    def __init__(self, step: int):
        super().__init__(
            f"preempted (SIGTERM): saved at step {step}; run the same command to resume"
        )
        self.step = step


class Preemption:
    """Whether this run has been asked to stop. Made by `listen`.

    In one process the signal itself decides. Of several, JAX's runtime catches it and lets
    all agree on a step that none has passed, since all of them must take part in the save.
    """

    def __init__(self):
        self._requested = threading.Event()

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
    """Listens for SIGTERM, which schedulers send some time before they kill.

    A second signal acts as if nobody listened. Outside of the main thread Python allows no handler:
    the signal then ends the process, as it always does.
    """
    preemption = Preemption()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield preemption
        return

    before = signal.getsignal(signal.SIGTERM)

    def handle(number, frame):
        del number, frame
        signal.signal(signal.SIGTERM, before)
        preemption.request()

    signal.signal(signal.SIGTERM, handle)
    try:
        yield preemption
    finally:
        signal.signal(signal.SIGTERM, before)
