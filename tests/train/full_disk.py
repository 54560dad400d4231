"""Saves where there is no room, and again where there is; started by test_checkpoint_faults.py.

Usage: python tests/train/full_disk.py WAY FOLDER

WAY: "ballast" (FOLDER is a disk of 8 MiB, which a file fills), "limit" (files may not grow beyond
1 MiB), "rights" (FOLDER may not be written). Prints what happened as JSON.
"""

import contextlib
import json
import os
import pathlib
import resource
import sys

import jax
import numpy as np

from train.checkpoint import checkpoint

WAY, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])


@contextlib.contextmanager
def trouble():
    """Makes the next save fail."""
    if WAY == "ballast":
        ballast = FOLDER / "ballast"
        ballast.write_bytes(bytes(5 << 20))
        yield
        ballast.unlink()
    elif WAY == "limit":
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    elif os.geteuid() == 0:  # root may write anywhere, nobody may not
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        (FOLDER / "checkpoints").chmod(0o555)
        yield
        (FOLDER / "checkpoints").chmod(0o755)


x = jax.numpy.asarray(np.random.default_rng(0).normal(size=500_000), np.float32)  # 2 MB
folder, told = FOLDER / "checkpoints", []
checkpoints = checkpoint.Checkpoints(folder)
checkpoints.save(1, {"x": x}, 1, None)
checkpoints.wait()
with trouble():
    for step in (2, 3):
        checkpoints.save(step, {"x": x + step}, step, None)
        try:
            checkpoints.wait()
        except checkpoint.SaveError as error:
            told.append(str(error))
    during = sorted(path.name for path in folder.iterdir())
checkpoints.save(4, {"x": x + 4}, 4, None)
restored = checkpoints.restore({"x": jax.ShapeDtypeStruct(x.shape, x.dtype)})
same = bool((restored.state["x"] == x + 4).all())
after = sorted(path.name for path in folder.iterdir())
print(json.dumps({"told": told, "during": during, "after": after, "same": same}))
