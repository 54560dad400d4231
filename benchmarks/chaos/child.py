"""`python -m train` that kills itself inside a save.

    python -m benchmarks.chaos.child STAGE NUMBER DELAY --config=... --workdir=...

At save NUMBER of its life (from 1) the process gets SIGKILL: DELAY seconds after the save began
(STAGE "begun": arrays are being written in the background), before the checksums are written
("written"), after them and before the rename ("sealed"), or right after it, before older ones are
removed ("renamed").
"""

import itertools
import os
import runpy
import signal
import sys
import time

from train import checkpoint, integrity, saving

STAGES = ("begun", "written", "sealed", "renamed")


def _die() -> None:
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(stage: str, number: int, delay: float) -> None:
    """Replaces what a save calls."""
    saves, seals = itertools.count(1), itertools.count(1)
    save, seal = checkpoint.Checkpoints.save, integrity.seal

    def save_and_die(self, *args, **options):
        result = save(self, *args, **options)
        if result and next(saves) == number and stage == "begun":
            time.sleep(delay)
            _die()
        return result

    def seal_and_die(*args, **options):
        at = next(seals)
        if at == number and stage == "written":
            _die()
        seal(*args, **options)
        if at == number and stage == "sealed":
            _die()

    sync, syncs = saving._sync, itertools.count(1)

    def sync_and_die(folder):
        if next(syncs) == number and stage == "renamed":
            _die()
        sync(folder)

    checkpoint.Checkpoints.save, integrity.seal = save_and_die, seal_and_die
    saving._sync = sync_and_die


if __name__ == "__main__":
    chosen, count, seconds = sys.argv[1:4]
    if chosen not in STAGES:
        raise ValueError(f"stage {chosen!r} is unknown; choose one of {', '.join(STAGES)}")
    del sys.argv[1:4]
    _arm(chosen, int(count), float(seconds))
    runpy.run_module("train", run_name="__main__", alter_sys=True)
