"""The folder of a run: whose run it is (`config.json`), and who trains it now (`run.lock`)."""

import contextlib
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from train.checkpoint import folders

CONFIG = "config.json"
LOCK = "run.lock"

# Settings that a restarted run may change: they move no number of the trajectory, or (placement,
# mesh) none beyond rounding, or (guard) only where the run could not have gone on. `train.steps`
# says when to stop: the schedule is that of `optim.steps`.
CHANGEABLE = (
    "deterministic",
    "placement",
    "mesh.data",
    "mesh.fsdp",
    "mesh.sequence",
    "data.data_dir",
    "data.workers",
    "guard.non_finite",
    "guard.max_skips",
    "guard.spike",
    "guard.slow_step",
    "guard.hang_seconds",
    "guard.failed_saves",
    "train.epochs",
    "train.eval_every",
    "train.keep",
    "train.keep_every",
    "train.log_every",
    "train.save_every",
    "train.steps",
)


@contextlib.contextmanager
def lock(workdir: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes from training into the folder, for as long as this one lives.

    Where the file system has no locks (some network file systems), nothing is checked.

    Args:
      workdir: local; made if missing.

    Raises:
      ValueError: another process trains into it; names its host and number.
    """
    path = pathlib.Path(workdir) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            # Record locks: a process that dies releases them, and its children do not hold them.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ValueError(
                f"{workdir} is in use: {holder} is training into it; wait for it to end, stop it, "
                "or choose another --workdir"
            ) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def claim(workdir: str | os.PathLike, config: ml_collections.ConfigDict, *, write: bool = True):
    """Makes the folder this run's own; returns its path.

    Args:
      workdir: new, empty, or of an earlier process of the same run.
      config: the resolved config.
      write: False on every host but the first.

    Raises:
      ValueError: the folder holds the run of another config; lists what differs.
    """
    workdir = pathlib.Path(workdir)
    if (workdir / CONFIG).is_file():
        old, new = (dict(leaves(c)) for c in (read(workdir).to_dict(), config.to_dict()))
        differing = [
            f"{key}: there {old.get(key)!r}, now {new.get(key)!r}"
            for key in sorted(old.keys() | new.keys())
            if not _agree(key, old.get(key), new.get(key))
        ]
        if differing:
            raise ValueError(
                f"{workdir} holds a run of another config; choose a new --workdir, or restore "
                "its settings:\n  " + "\n  ".join(differing) + _remedy(workdir, old, new)
            )
    if write:
        workdir.mkdir(parents=True, exist_ok=True)
        temporary = workdir / f"{CONFIG}.tmp"
        temporary.write_text(config.to_json_best_effort(indent=2) + "\n")
        temporary.replace(workdir / CONFIG)
    return workdir


def _agree(key: str, old: Any, new: Any) -> bool:
    if old == new or key in CHANGEABLE:
        return True
    if key != "data.source" or not (isinstance(old, str) and isinstance(new, str)):
        return False
    # Data that was moved, as with a job's own scratch folder, is known by its name.
    (kind, _, there), (kind_now, colon, here) = old.partition(":"), new.partition(":")
    name = pathlib.PurePath(there).name
    return kind == kind_now and bool(colon) and name == pathlib.PurePath(here).name != ""


def _remedy(workdir: pathlib.Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Says what to do where the run is to be trained longer, or its data lies elsewhere."""
    if old.get("optim.steps") != new.get("optim.steps"):
        return (
            f"\nTo train on with the optimiser's state, keep the schedule and set the end: "
            f"--config.optim.steps={old.get('optim.steps')} "
            f"--config.train.steps={new.get('train.steps')}. To train on with a new schedule and "
            f"a new optimiser: a new --workdir with --config.init_from.source={workdir}"
        )
    if old.get("data.source") != new.get("data.source"):
        return "\nData that was moved is accepted where the last part of its path is the same"
    return ""


def read(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
    """Returns the config of a run.

    Raises:
      FileNotFoundError: the folder holds no run.
      ValueError: its config.json is broken, or none of a run.
    """
    path = folders.of(workdir) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {workdir} is not the folder of a run; "
            "give the --workdir of a `python -m train` command"
        )
    from perceiver.weights import files  # imports JAX, which takes seconds

    try:
        config = files.read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; restore it, or train from scratch") from error
    if not isinstance(config.get("train"), dict):
        raise ValueError(
            f"{workdir} is not the folder of a run: its {CONFIG} belongs to something else, such "
            "as an exported model; give the --workdir of a `python -m train` command"
        )
    return ml_collections.ConfigDict(config).lock()


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ("section.field", value) of a config; tuples as lists, as JSON gives them back."""
    for key, value in tree.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value
