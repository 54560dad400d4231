"""Processes that train together on a machine that is busy: all wait until the last one has come.

Gloo gives processes 30 s to meet, when a group of devices exchanges something for the first time;
one that starts late, or compiles for longer, would be too late. JAX's coordination service waits
for as long as it is told: here processes meet there first, when their programs are compiled.

Usage: python tests/train/together.py WORDS, as of `python -m train`
"""

import itertools
import runpy

import jax
import numpy as np
from jax._src import distributed  # no public name leads to the coordination service
from jax.experimental import multihost_utils

from train.devices import cluster, placement

SECONDS = 240
_meetings = itertools.count()


def meet():
    """Waits until all processes are here; raises where one of them has ended."""
    if jax.process_count() > 1:
        name = f"tests/{next(_meetings)}"
        distributed.global_state.client.wait_at_barrier(name, SECONDS * 1000)


def connect():
    """Has Gloo connect all processes now, once the last one has come."""
    meet()
    multihost_utils.sync_global_devices("all are here")
    multihost_utils.broadcast_one_to_all(np.zeros(1))


def compiled_together(step):
    """The step, which no process runs before all have compiled it.

    What is compiled here goes into JAX's cache, from which the step itself takes it: what `pmap`
    compiles in advance cannot be called with one process's share of the rows.
    """
    is_compiled = False

    def run(*arguments):
        nonlocal is_compiled
        if not is_compiled:
            step.lower(*arguments).compile()
            meet()
            is_compiled = True
        return step(*arguments)

    return run


def patch():
    """Changes this process for good: it joins the others, and runs steps, together with them."""
    join = cluster.join

    def join_and_connect(*words, **options):
        found = join(*words, **options)
        connect()
        return found

    cluster.join = join_and_connect
    for name in ("compile_train", "compile_eval"):
        intact = getattr(placement.Placement, name)

        def compiling(self, step, intact=intact):
            return compiled_together(intact(self, step))

        setattr(placement.Placement, name, compiling)


if __name__ == "__main__":
    patch()
    runpy.run_module("train", run_name="__main__", alter_sys=True)
