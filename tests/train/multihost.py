"""One of several processes that train the toy task together; started by test_multihost.py.

Usage: python tests/train/multihost.py PORT PROCESSES INDEX PLACEMENT FOLDER
"""

import functools
import json
import sys

import jax
import optax

PORT, PROCESSES, INDEX, PLACEMENT, FOLDER = sys.argv[1:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{PORT}", int(PROCESSES), int(INDEX))

from conftest import ToyTask, make_batch  # noqa: E402 - after the devices are known

from train import checkpoint, placement, step  # noqa: E402

place = placement.make(PLACEMENT)
task, optimizer = ToyTask(), optax.adamw(1e-2)
init = functools.partial(step.init_state, task, optimizer, 0, make_batch(2))
train = place.compile_train(functools.partial(step.make_train_step, task, optimizer, seed=0))
evaluate = place.compile_eval(step.make_eval_step(task))
rows = slice(24 // int(PROCESSES) * int(INDEX), 24 // int(PROCESSES) * (int(INDEX) + 1))


def put(seed):
    """This process's rows of the global batch."""
    return place.put({name: x[rows] for name, x in make_batch(24, seed).items()})


state = place.init(init)
losses = []
with checkpoint.Checkpoints(FOLDER) as checkpoints:
    for index in range(4):
        if index == 2:  # as a restarted run would
            checkpoints.save(index, place.canonical(state), {"batches": index}, {})
            state = checkpoints.restore(place.abstract(init)).state
        state, sums = train(state, put(index))
        total, weight = place.fetch(sums)["loss"]
        losses.append(total / weight)
    held_out = place.fetch(evaluate(state, put(9)))
    checkpoints.save(4, place.canonical(state), {"batches": 4}, {})

if jax.process_index() == 0:
    print(json.dumps({"losses": losses, "held_out": held_out["loss"], "devices": place.devices}))
