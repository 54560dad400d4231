"""Checkpoints: one atomic step holds everything that the future of a run depends on.

A step is a folder `<folder>/<step>` with `state/` (arrays by path, in Orbax's format), `run/` (the
JSON object `{"data": position of the data iterator, "config": resolved config, "arrays":
fingerprints}`) and `checksums.json`. It is written in the background by all hosts together
(`train.checkpoint.saving`), and counts when it is whole.

What is proven when. On writing: the arrays that were on the devices (their fingerprints) are those
that come back from the files, read again after the disk was told to keep them and the kernel to
forget them; the checksums are of these same files. A disk whose own cache lies is not found out.
Only after that are older checkpoints removed. On reading: the files are those of the checksums, and
the arrays that have arrived on the devices have the fingerprints of those that were saved.
"""

import json
import logging as standard_logging
import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from perceiver.weights import files
from train.checkpoint import array_files, fingerprint, folders, integrity, saving
from train.checkpoint.saving import SaveError
from train.devices.sharding import path_of

Tree = Any


class Restored(NamedTuple):
    """What a checkpoint holds."""

    state: Tree  # with the shardings that were asked for
    data_state: Any  # for `Batches.restore`
    step: int
    config: Any


class DamagedCheckpoint(NamedTuple):
    """A checkpoint that cannot be used, and why."""

    path: folders.Folder
    reason: str


class Checkpoints:
    """The checkpoints in one folder; a context manager, whose end waits for unfinished saves.

    All hosts of a job make one together, and call its methods together.

    Attributes:
      folder: where they are.
      damaged: what the last `restore` had to pass over, newest first (on the first host).
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        keep: int = 3,
        keep_every: int = 0,
        read_only: bool = False,
    ):
        """Opens a folder, and makes it unless `read_only`.

        Args:
          folder: holds checkpoints and nothing else; local, or `gs://` (package gcsfs).
          keep: how many of the newest to keep.
          keep_every: steps whose multiples are kept for ever, besides; 0: none.
          read_only: never save, and leave alone what another process may be writing.

        Raises:
          ValueError: `keep` is below 1 or `keep_every` below 0, or the storage is one that Orbax
            cannot write (`s3://`).
          FileNotFoundError: `read_only`, and there is no such folder.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1 checkpoint, got {keep}")
        if keep_every < 0:
            raise ValueError(f"keep_every must be a number of steps, or 0, got {keep_every}")
        self.folder = folders.of(folder)
        if str(self.folder).startswith("s3://"):
            raise ValueError(
                f"checkpoints cannot be stored in {self.folder}: Orbax writes to local folders and "
                "gs:// only; mount the bucket as a folder, or choose one of these"
            )
        if read_only and not self.folder.is_dir():
            raise FileNotFoundError(f"no checkpoints at {self.folder}: run training there first")
        self.damaged: list[DamagedCheckpoint] = []
        self._read_only = read_only
        self._save: saving.Save | None = None
        policies = [ocp.checkpoint_managers.LatestN(keep)]
        if keep_every:
            policies.append(ocp.checkpoint_managers.EveryNSteps(keep_every))
        self._preserved = ocp.checkpoint_managers.AnyPreservationPolicy(policies)
        standard_logging.getLogger("absl").addFilter(_without_orbax_chatter)
        if not read_only:
            if jax.process_index() == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                saving.sweep(self.folder)
            _meet("checkpoints are open")
        self._known = self.steps()  # at a save, a folder's listing may lag behind another host's

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.close()
        except SaveError as failed:
            if error is None:
                raise
            logging.error("%s", failed)  # what ended the run is the news

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first; damaged ones included."""
        entries = self.folder.iterdir() if self.folder.is_dir() else ()
        remote = folders.is_remote(self.folder)
        return sorted(
            int(path.name)
            for path in entries
            if path.name.isdecimal()
            and path.name == str(int(path.name))
            and ((path / integrity.CHECKSUMS).is_file() if remote else path.is_dir())
        )

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
          SaveError: the save before this one failed; this one has not been started.
        """
        run = {"data": data_state, "config": config}
        json.dumps(run)  # fails here, not in the background
        state = _by_path(state)
        self.wait()
        if self._read_only:
            raise ValueError(f"{self.folder} was opened read-only; open it without read_only")
        if step in self._known:
            return False
        self._save = saving.Save(
            self.folder, step, state, run, committed=lambda: self._remove_old(step)
        )
        return True

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
        self.damaged = []
        wanted, below = _by_path(abstract_state), None
        while (step := self._newest_intact(below)) is not None:
            folder = self.folder / str(step)
            array_files.check_same(folder / saving.STATE, wanted)
            run = files.read_json(folder / saving.RUN)
            arrays = array_files.read(folder / saving.STATE, wanted)
            changed = _changed(arrays, run.get("arrays"))
            if changed is None:
                break
            arrays, below = None, step  # frees the memory of this one
            self._pass_over(folder, f"{changed} is not what was saved, though its files are")
        else:
            return None
        leaves = [arrays[path] for path in wanted]
        state = jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)
        self._set_damaged_aside()
        self._known = [known for known in self.steps() if known <= step]
        return Restored(state, run["data"], step, run["config"])

    def wait(self) -> None:
        """Blocks until nothing is being saved.

        Raises:
          SaveError: the save failed on this host or another; all hosts raise it. Raised once.
        """
        if self._save is None:
            return
        save, self._save = self._save, None
        save.join(self._known)
        self._known = sorted({*self._known, save.step})

    def close(self) -> None:
        """Waits, and raises as `wait` does."""
        self.wait()

    def _remove_old(self, newest: int) -> None:
        """Removes what need not be kept; a failure is told, and harms nothing."""
        steps = [_Info(step) for step in sorted({*self.steps(), newest})]
        kept = self._preserved.should_preserve(
            steps, context=ocp.checkpoint_managers.PreservationContext()
        )
        for info, is_kept in zip(steps, kept, strict=True):
            if is_kept:
                continue
            try:
                saving.remove(self.folder / str(info.step))
            except OSError as error:
                logging.warning("cannot remove the old checkpoint of step %d: %s", info.step, error)

    def _newest_intact(self, below: int | None) -> int | None:
        """The step to restore, the same on all hosts; adds to `damaged`."""
        newest = -1
        if jax.process_index() == 0:
            for step in reversed(self.steps()):
                if below is not None and step >= below:
                    continue
                path = self.folder / str(step)
                reason = integrity.find_damage(path) or _unreadable(path)
                if reason is None:
                    newest = step
                    break
                self._pass_over(path, reason)
        damaged = len(self.damaged)
        if jax.process_count() > 1:
            both = multihost_utils.broadcast_one_to_all(np.array([newest, damaged]))
            newest, damaged = (int(x) for x in both)
        if newest < 0 and damaged:
            reasons = "".join(f"\n  {path}: {reason}" for path, reason in self.damaged)
            raise ValueError(
                f"all {damaged} checkpoints in {self.folder} are damaged:{reasons}\n"
                "Put an undamaged copy of one back, or delete the folder to start from step 0."
            )
        return None if newest < 0 else newest

    def _pass_over(self, path: folders.Folder, reason: str) -> None:
        logging.warning("checkpoint %s is damaged (%s); trying the previous one", path, reason)
        self.damaged.append(DamagedCheckpoint(path, reason))

    def _set_damaged_aside(self) -> None:
        if self._read_only:
            return
        for path, _ in self.damaged if jax.process_index() == 0 else ():
            target = path.with_name(f"{path.name}.damaged")
            count = 1
            while target.exists():
                count += 1
                target = path.with_name(f"{path.name}.damaged-{count}")
            try:
                path.rename(target)
            except OSError as error:  # a folder that cannot be written: saving will tell
                logging.warning("cannot rename the damaged %s: %s", path, error)
        _meet("damaged checkpoints are set aside")


def _unreadable(path: folders.Folder) -> str | None:
    """Why a checkpoint with the right checksums still cannot be one; None where it can."""
    try:
        run = files.read_json(path / saving.RUN)
        files.read_json(path / saving.STATE / array_files.METADATA)
    except (OSError, ValueError) as error:
        return str(error)
    if not {"data", "config"} <= run.keys():
        return f"{saving.RUN} lacks data and config"
    return None


class _Info(NamedTuple):
    """A checkpoint, as Orbax's policies look at it."""

    step: int


def _changed(arrays: dict[str, jax.Array], saved: fingerprint.Fingerprints | None) -> str | None:
    """The first array that has another fingerprint than was saved; checkpoints may have none."""
    if saved is None:
        return None
    fingerprints = saving.whole(fingerprint.end(fingerprint.begin(arrays)))
    return next((path for path in arrays if fingerprints[path] != saved.get(path)), None)


def _meet(what: str) -> None:
    """Waits for all hosts."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def _by_path(tree: Tree) -> dict[str, Any]:
    """Leaves by path, in the tree's order: independent of the classes that the tree is made of."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    flat = {path_of(keys): leaf for keys, leaf in leaves}
    if len(flat) != len(leaves):
        raise ValueError("two arrays of a state have the same path: rename one of the modules")
    return flat


def _without_orbax_chatter(record: standard_logging.LogRecord) -> bool:
    """Orbax reports each of its steps as a warning or an info; its errors are also raised."""
    return "orbax" not in pathlib.Path(record.pathname).parts
