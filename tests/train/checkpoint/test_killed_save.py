import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from train.checkpoint import checkpoint as checkpoint_lib

ROOT = pathlib.Path(__file__).parents[3]

# Saves step after step; the state of step n is full of n. Prints each step that wait() vouched for.
CHILD = """
import os, signal, sys
import jax.numpy as jnp
from train.checkpoint import checkpoint, integrity

folder, stage = sys.argv[1:]
seal = integrity.seal

def seal_and_die(path):
    if stage == "sealed":
        seal(path)
    os.kill(os.getpid(), signal.SIGKILL)

checkpoints = checkpoint.Checkpoints(folder, keep=2)
found = checkpoints.restore({"x": checkpoint.jax.ShapeDtypeStruct((500_000,), jnp.float32)})
first = found.step + 1 if found else 1
for step in range(first, first + 1000):
    if stage != "any" and step == first + 2:
        checkpoints.wait()
        integrity.seal = seal_and_die
    checkpoints.save(step, {"x": jnp.full(500_000, float(step))}, {"batches": step}, {})
    print(step, flush=True)
"""


def test_a_save_that_is_killed_never_counts(tmp_path):
    """Killed before the checksums, after them but before the rename, and at any moment at all."""
    wanted = {"x": jax.ShapeDtypeStruct((500_000,), jnp.float32)}
    announced = 0
    for stage in ("written", "sealed", "any"):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), stage],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            lines = [int(child.stdout.readline())]
            if stage == "any":
                lines += [int(child.stdout.readline()) for _ in range(3)]
                time.sleep(float(np.random.default_rng().uniform(0, 0.05)))
                child.kill()
            lines += [int(line) for line in child.stdout]
        assert child.returncode == -9
        # A step is announced when its save begins, which is when the one before has ended.
        finished = max(announced, lines[-1] - 1)
        if stage != "any":
            left = list(tmp_path.glob("*.orbax-checkpoint-tmp*"))
            assert [path.name.split(".")[0] for path in left] == [str(lines[-1])]
        with checkpoint_lib.Checkpoints(tmp_path, read_only=True) as checkpoints:
            restored = checkpoints.restore(wanted)
            assert checkpoints.damaged == []
        assert restored.step in (finished, finished + 1)
        assert restored.data_state == {"batches": restored.step}
        np.testing.assert_array_equal(restored.state["x"], float(restored.step))
        announced = restored.step
