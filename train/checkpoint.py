"""Checkpoints: one atomic step holds everything that the future of a run depends on.

Orbax writes in the background into a temporary folder and renames it when complete, so a killed run
leaves no half-written step. What can still go wrong (a copy cut short by a full disk, a flipped
byte, which the array format does not notice) is caught by checksums, written into the same folder
before the rename and compared before anything is restored.

A step is a folder `<folder>/<step>` with `state/` (arrays by path), `run/` (the JSON object
`{"data": position of the data iterator, "config": resolved config}`) and `checksums.json`.
"""

import json
import logging as standard_logging
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from train import integrity
from train.sharding import path_of

Tree = Any
_NAMED = 8  # array paths that an error message lists of each kind


class SaveError(OSError):
    """A save failed; the checkpoints before it are as they were."""


class Restored(NamedTuple):
    """What a checkpoint holds."""

    state: Tree  # with the shardings that were asked for
    data_state: Any  # for `Batches.restore`
    step: int
    config: Any


class Damage(NamedTuple):
    """A checkpoint that cannot be used, and why."""

    path: pathlib.Path
    reason: str


class Checkpoints:
    """The checkpoints in one folder; a context manager, whose end waits for unfinished saves.

    Attributes:
      folder: where they are.
      damaged: what the last `restore` had to pass over, newest first (on the first host).
    """

    def __init__(self, folder: str | pathlib.Path, *, keep: int = 3, read_only: bool = False):
        """Opens a folder, and makes it unless `read_only`.

        Args:
          folder: holds checkpoints and nothing else.
          keep: how many of the newest to keep.
          read_only: never save, and leave alone what another process may be writing.

        Raises:
          ValueError: `keep` is below 1.
          FileNotFoundError: `read_only`, and there is no such folder.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1 checkpoint, got {keep}")
        self.folder = pathlib.Path(folder).absolute()
        if read_only and not self.folder.is_dir():
            raise FileNotFoundError(f"no checkpoints at {self.folder}: train there first")
        self.damaged: list[Damage] = []
        self._read_only = read_only
        self._saving = 0
        standard_logging.getLogger("absl").addFilter(_without_orbax_chatter)
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first; damaged ones included."""
        names = (path.name for path in self.folder.iterdir() if path.is_dir())
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, step: int, state: Tree, data_state: Any, config: Any) -> bool:
        """Starts to save; returns as soon as the state has been copied off the devices.

        Args:
          step: what to call it.
          state: arrays (`Placement.canonical`); the next training step may consume them.
          data_state: position of the data iterator, as JSON (`Batches.state()`).
          config: the resolved config, as JSON; tuples come back as lists.

        Returns:
          Whether it is being saved: a run that was just restored already has its step.

        Raises:
          TypeError: `data_state` or `config` is not JSON.
          Exception: whatever the save before this one failed with.
        """
        run = {"data": data_state, "config": config}
        json.dumps(run)  # fails here, not in the background
        self.wait()
        if step in self.steps():
            return False
        self._saving = step
        state = ocp.args.StandardSave(_by_path(state))
        args = ocp.args.Composite(state=state, run=ocp.args.JsonSave(run))
        return self._manager.save(step, args=args, force=True)

    def restore(self, abstract_state: Tree) -> Restored | None:
        """The newest undamaged checkpoint, or None where there are none at all.

        Damaged ones are logged, listed in `damaged`, and (unless `read_only`) renamed to
        `<step>.damaged`, so that the run can save those steps again.

        Args:
          abstract_state: `jax.ShapeDtypeStruct`s with shardings (`Placement.abstract`). Placement
            and device count may differ from those at the time of saving; values are bit-equal.

        Raises:
          ValueError: all checkpoints are damaged, or the newest good one has other arrays than
            `abstract_state`.
        """
        self.wait()
        step = self._newest_intact()
        if step is None:
            return None
        wanted = _by_path(abstract_state)
        saved = self._manager.item_metadata(step)["state"].tree
        _check_same_arrays(self.folder / str(step), saved, wanted)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(wanted), run=ocp.args.JsonRestore()
        )
        item = self._manager.restore(step, args=args)
        state = jax.tree.unflatten(
            jax.tree.structure(abstract_state), [item["state"][path] for path in wanted]
        )
        self._set_damaged_aside()
        return Restored(state, item["run"]["data"], step, item["run"]["config"])

    def wait(self) -> None:
        """Blocks until nothing is being saved; raises what a save in the background failed with."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees Orbax's threads. Further calls are an error."""
        self._manager.close()

    def _seal(self) -> None:
        """Writes the checksums of a complete step; Orbax calls it right before the rename."""
        (folder,) = self.folder.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        # Orbax rewrites the root's metadata before the rename; a restore reads nothing from it.
        integrity.seal(folder, leave_out=("_CHECKPOINT_METADATA",))

    def _newest_intact(self) -> int | None:
        """The step to restore, the same on all hosts; fills `damaged`."""
        self.damaged = []
        found = -1
        if jax.process_index() == 0:
            for step in reversed(self.steps()):
                path = self.folder / str(step)
                reason = integrity.find_damage(path)
                if reason is None:
                    found = step
                    break
                logging.warning(
                    "checkpoint %s is damaged (%s); trying the one before", path, reason
                )
                self.damaged.append(Damage(path, reason))
        damaged = len(self.damaged)
        if jax.process_count() > 1:
            both = multihost_utils.broadcast_one_to_all(np.array([found, damaged]))
            found, damaged = (int(x) for x in both)
        if found < 0 and damaged:
            reasons = "".join(f"\n  {path}: {reason}" for path, reason in self.damaged)
            raise ValueError(
                f"all {damaged} checkpoints in {self.folder} are damaged:{reasons}\n"
                "Put an undamaged copy of one back, or delete the folder to start from step 0."
            )
        return None if found < 0 else found

    def _set_damaged_aside(self) -> None:
        if self._read_only:
            return
        for path, _ in self.damaged:
            target = path.with_name(f"{path.name}.damaged")
            count = 1
            while target.exists():
                count += 1
                target = path.with_name(f"{path.name}.damaged-{count}")
            path.rename(target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()


def _by_path(tree: Tree) -> dict[str, Any]:
    """Leaves by path, in the tree's order: independent of the classes that the tree is made of."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    flat = {path_of(keys): leaf for keys, leaf in leaves}
    if len(flat) != len(leaves):
        raise ValueError("two arrays of a state have the same path: rename one of the modules")
    return flat


def _check_same_arrays(folder: pathlib.Path, saved: dict, wanted: dict) -> None:
    """Raises unless a checkpoint has exactly the arrays of the state that is to be restored."""
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
            f"checkpoint {folder} belongs to another model or optimizer:{lists}\n"
            "Train with the config that is saved in the same work dir, or choose a new work dir."
        )


def _signature(x: Any) -> str:
    return f"{np.dtype(x.dtype)}{list(x.shape)}"


def _enumerate(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _without_orbax_chatter(record: standard_logging.LogRecord) -> bool:
    """Orbax reports each of its steps as a warning or an info; its errors are also raised."""
    return "orbax" not in pathlib.Path(record.pathname).parts
