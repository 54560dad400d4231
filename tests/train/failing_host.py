"""One of two processes that save together, of which one fails; see test_checkpoint_faults.py.

Usage: python tests/train/failing_host.py PORT INDEX FOLDER
"""

import json
import sys
import time

import jax
import numpy as np

PORT, INDEX, FOLDER = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{PORT}", 2, INDEX)

from jax.sharding import Mesh, NamedSharding  # noqa: E402 - after the devices are known
from jax.sharding import PartitionSpec as P  # noqa: E402

from tests.train import together  # noqa: E402
from train.checkpoint import array_files, checkpoint  # noqa: E402


class Fails:
    """Something that was to be written, and is not."""

    def result(self):
        raise OSError(28, "No space left on device")


write, merge = array_files.write, array_files.merge


def failing_write(folder, state):
    """Of the second host fails at once at step 2, and in the background at step 3."""
    if INDEX == 1 and folder.parent.name.startswith("2."):
        raise PermissionError(13, "Permission denied")
    futures = write(folder, state)
    return [*futures, Fails()] if INDEX == 1 and folder.parent.name.startswith("3.") else futures


def failing_merge(folder):
    """Of the first host fails at step 4."""
    if folder.parent.name.startswith("4."):
        raise OSError(30, "Read-only file system")
    merge(folder)


together.connect()
array_files.write, array_files.merge = failing_write, failing_merge
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), P("data"))
x = jax.jit(lambda: jax.numpy.arange(4096.0), out_shardings=sharding)()
told, began = [], time.monotonic()
with checkpoint.Checkpoints(FOLDER) as checkpoints:
    for step in (1, 2, 3, 4, 5):
        try:
            checkpoints.save(step, {"x": x + step}, step, {})
            checkpoints.wait()
        except checkpoint.SaveError as error:
            told.append(str(error))
    abstract = {"x": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)}
    restored = checkpoints.restore(abstract)
    same = bool((restored.state["x"] == x + restored.step).all())
    steps = checkpoints.steps()
seconds = time.monotonic() - began
print(json.dumps({"told": told, "steps": steps, "same": same, "seconds": seconds}))
