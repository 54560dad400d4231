"""`python -m train` that kills itself by SIGKILL inside a save.

    python tests/benchmarks/chaos_child.py STAGE NUMBER --config=... --workdir=...

At save NUMBER of its life (from 1) it ends: while arrays are written in the background ("begun"),
before the checksums are written ("written"), after them and before the rename ("sealed"), or right
after it, before older ones are removed ("renamed").
"""

import itertools
import os
import runpy
import signal
import sys

from train.checkpoint import checkpoint, integrity, saving

STAGES = ("begun", "written", "sealed", "renamed")


def _deadly(function, stage: str, *, before: bool):
    """Returns the function, which ends the process at its call NUMBER if that is the stage."""
    calls = itertools.count(1)

    def call(*args, **options):
        is_last = stage == wanted and next(calls) == number
        if is_last and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **options)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


if __name__ == "__main__":
    wanted, number = sys.argv[1], int(sys.argv[2])
    assert wanted in STAGES
    del sys.argv[1:3]
    checkpoint.Checkpoints.save = _deadly(checkpoint.Checkpoints.save, "begun", before=False)
    integrity.seal = _deadly(
        _deadly(integrity.seal, "sealed", before=False), "written", before=True
    )
    saving._sync = _deadly(saving._sync, "renamed", before=True)
    runpy.run_module("train", run_name="__main__", alter_sys=True)
