"""The folder of a run, and whose run it is: `config.json`."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from train.checkpoint import folders

CONFIG = "config.json"

# Settings that a restarted run may change: they move no number of the trajectory, or (placement,
# mesh) none beyond rounding, or (guard) only where the run could not have gone on.
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
    "train.eval_every",
    "train.keep",
    "train.keep_every",
    "train.log_every",
    "train.save_every",
)


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
            if old.get(key) != new.get(key) and key not in CHANGEABLE
        ]
        if differing:
            raise ValueError(
                f"{workdir} holds a run of another config; choose a new --workdir, or restore "
                "its settings:\n  " + "\n  ".join(differing)
            )
    if write:
        workdir.mkdir(parents=True, exist_ok=True)
        temporary = workdir / f"{CONFIG}.tmp"
        temporary.write_text(config.to_json_best_effort(indent=2) + "\n")
        temporary.replace(workdir / CONFIG)
    return workdir


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
    try:
        config = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is broken ({error}); restore it, or train from scratch"
        ) from error
    if "train" not in config:
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
