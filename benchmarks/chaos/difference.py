"""What differs, in any bit, between two runs of `benchmarks.chaos`."""

import functools
import pathlib

import numpy as np


def compare(reference: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """What differs, in any bit, between two complete runs."""
    ours, theirs = _arrays(reference), _arrays(folder)
    if ours.keys() != theirs.keys():
        return [f"arrays {sorted(ours.keys() ^ theirs.keys())} are of one run only"]
    differing = [path for path, x in ours.items() if x.tobytes() != theirs[path].tobytes()]
    found = [f"{len(differing)} arrays differ: {', '.join(differing[:5])}"] if differing else []
    rows = zip(_rows(reference), _rows(folder), strict=False)
    lines = [f"metrics differ: {mine}, {other}" for mine, other in rows if mine != other]
    if len(_rows(reference)) != len(_rows(folder)):
        lines.append("metrics.jsonl has another number of lines")
    return found + lines[:3]


@functools.lru_cache(maxsize=2)
def _arrays(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The whole last state by path."""
    import jax  # after the device count is settled
    from train.sharding import path_of

    from train import experiment, workdir
    from train.checkpoint import Checkpoints

    config = workdir.read(folder)
    with config.unlocked():
        config.placement = "single"
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(experiment.make(config).abstract_state())
    if restored is None or restored.step != config.train.steps:
        raise ValueError(f"{folder} holds no complete run")
    leaves = jax.tree_util.tree_leaves_with_path(restored.state)
    return {path_of(keys): np.asarray(x) for keys, x in leaves}


def _rows(folder: pathlib.Path) -> list[dict]:
    from train.journal import SPEEDS, read

    rows = read(folder / "metrics.jsonl")
    return [{name: x for name, x in row.items() if name not in SPEEDS} for row in rows]
