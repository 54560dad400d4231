"""The arrays of a checkpoint on disk: Orbax's format (OCDBT, Zarr 3), written in the background.

Each host writes the parts that it holds, by tensorstore, into one folder; `merge` makes one
database of them. A folder `state/` is a plain Orbax checkpoint: `ocp.StandardCheckpointer` reads
it. Floats do not compress, so nothing is: less work beside training, and less memory.
"""

import asyncio
import concurrent.futures
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from train.checkpoint import fingerprint
from train.checkpoint.folders import Folder

METADATA = "_METADATA"  # Orbax's, of the arrays: JSON
State = Mapping[str, Any]  # path -> array, or its shape, dtype and sharding
_NAMED = 8  # array paths that an error message lists of each kind
_READ_BYTES = 1 << 28  # that `find_change` reads at once, but for a larger array


def write(folder: Folder, state: State) -> Sequence[Any]:
    """Starts to write this host's parts into an existing folder.

    Returns:
      Futures with `result()`, one for each part of the work; all of them must be waited for. What
      the state holds is safe from donation when this returns.
    """
    handler = _handler(state)
    # No smaller data files than by default: what does not fit into one is cut, and so copied.
    args = ocp.args.PyTreeSave(dict(state))
    # A thread of its own, because a notebook has an event loop running in the main one.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        save = thread.submit(lambda: asyncio.run(handler.async_save(epath.Path(folder), args=args)))
        return save.result() or ()


def merge(folder: Folder) -> None:
    """Makes one database of what all hosts have written; called on one host, when all are done."""
    ocp.PyTreeCheckpointHandler(use_zarr3=True).finalize(epath.Path(folder))


def check_same(folder: Folder, wanted: State) -> None:
    """Checks that a checkpoint has exactly the arrays of the state that is to be restored.

    Raises:
      ValueError: it has others; lists them.
    """
    try:
        saved = dict(ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)).tree)
    except Exception as error:  # whatever an edited file leads Orbax to
        raise ValueError(f"{folder}/{METADATA} cannot be read: {error!r}") from error
    changed = [
        f"{path}: {_signature(saved[path])} in the checkpoint, {_signature(wanted[path])} here"
        for path in wanted.keys() & saved.keys()
        if _signature(saved[path]) != _signature(wanted[path])
    ]
    kinds = {
        "only in the checkpoint": saved.keys() - wanted.keys(),
        "only in this run": wanted.keys() - saved.keys(),
        "of another shape or dtype": changed,
    }
    if any(kinds.values()):
        lists = "".join(
            f"\n  {kind}: {_enumerate(names)}" for kind, names in kinds.items() if names
        )
        raise ValueError(
            f"checkpoint {folder.parent} belongs to another model or optimizer:{lists}\n"
            "Use the config saved in the same work dir, or choose a new work dir."
        )


def read(folder: Folder, wanted: State) -> dict[str, jax.Array]:
    """Reads arrays onto the shardings of `wanted`: on each host only what its devices hold.

    Those without a sharding go to the first device.
    """
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or first)
        for path, x in wanted.items()
    }
    args = ocp.args.PyTreeRestore(
        wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted)
    )
    return dict(_handler(wanted).restore(epath.Path(folder), args=args))


def find_change(
    folder: Folder, written: fingerprint.Fingerprints, sizes: Mapping[str, int]
) -> str | None:
    """Reads arrays back, and tells which of them is not what was written; None where all are.

    Args:
      folder: merged.
      written: fingerprints of the arrays to look at.
      sizes: their bytes; so many are read at once that they fit into 256 MiB, or one array.
    """
    for paths in _groups(sizes):
        arrays = _read_numpy(folder, paths, max(sizes[path] for path in paths))
        for path in paths:
            if fingerprint.of_numpy(arrays.pop(path)) != written[path]:
                return path
    return None


def _read_numpy(folder: Folder, paths: Sequence[str], largest: int) -> dict[str, np.ndarray]:
    args = ocp.args.PyTreeRestore(
        dict.fromkeys(paths, 0),
        restore_args={path: ocp.RestoreArgs(restore_type=np.ndarray) for path in paths},
        partial_restore=True,
    )
    handler = ocp.PyTreeCheckpointHandler(restore_concurrent_gb=_gigabytes(largest))
    return dict(handler.restore(epath.Path(folder), args=args))


def _groups(sizes: Mapping[str, int]) -> Iterable[list[str]]:
    group, total = [], 0
    for path, size in sizes.items():
        if group and total + size > _READ_BYTES:
            yield group
            group, total = [], 0
        group.append(path)
        total += size
    if group:
        yield group


def _handler(state: State) -> ocp.PyTreeCheckpointHandler:
    largest = max((np.dtype(x.dtype).itemsize * x.size for x in state.values()), default=0)
    return ocp.PyTreeCheckpointHandler(
        save_concurrent_gb=_gigabytes(largest),
        restore_concurrent_gb=_gigabytes(largest),
        use_compression=False,
        use_zarr3=True,
    )


def _gigabytes(largest: int) -> int:
    """A limit on bytes under way: Orbax refuses an array that does not fit below it."""
    return 1 + 4 * largest // 10**9


def _signature(x: Any) -> str:
    return f"{np.dtype(x.dtype)}{list(x.shape)}"


def _enumerate(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
