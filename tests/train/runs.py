"""Small trained runs that many tests look at, and what is compared of a run's end."""

import contextlib
import fcntl
import functools
import io
import json
import os
import pathlib
import re
import shutil
import socket

import jax
import numpy as np
import pytest

from configs import digits, sentences
from train import experiment, loop
from train.checkpoint.checkpoint import Checkpoints
from train.devices.sharding import path_of
from train.report.metrics_log import SPEEDS, read
from train.run import run, trained_model
from train.step import TrainState

ROOT = pathlib.Path(__file__).resolve().parents[2]


def small(**changes):
    """The config of a run on one device: dropout and averaged parameters, every kind of interval.

    Tests that train themselves start from it too, for then all of them run the same programs. It
    saves at 5 and 10, evaluates at 4 and 8, and writes a line at 3, 6 and 9; the end is step 11.
    """
    c = digits.get_config("fourier,smoke")
    c.placement = "single"
    c.model.update(dropout_rate=0.1, layers=1, blocks=1)
    c.data.eval_batch_size = 304  # two batches of the 599
    c.optim.update(ema_decay=0.9, lr=3e-3)
    c.train.update(steps=11, log_every=3, save_every=5, eval_every=4)
    c.update_from_flattened_dict(changes)
    return c


def _sentences():
    c = sentences.get_config("embedded,smoke")
    c.placement = "single"
    return c


CONFIGS = {
    "classification": small,
    "sentences": _sentences,
}


# Settings of `train` that no compiled program depends on.
_INTERVALS = ("log_every", "eval_every", "save_every", "keep", "keep_every")
_PROGRAMS = {}


class SharedExperiment(experiment.Experiment):
    """An experiment whose programs are those of earlier ones of its config in this process.

    To trace and load them again takes most of a small run's time. That other processes resume a run
    is tested by runs that are processes.
    """

    def _once(self, name):
        config = self.config.to_dict()
        config["train"] = {k: x for k, x in config["train"].items() if k not in _INTERVALS}
        key = name, json.dumps(config, default=str, sort_keys=True)
        if key not in _PROGRAMS:
            made = getattr(super(), name)
            _PROGRAMS[key] = made if name == "init_state" else made()
        return _PROGRAMS[key]

    @property
    def init_state(self):
        return self._once("init_state")  # one function: JAX looks its program up by it

    def train_step(self):
        return self._once("train_step")

    def eval_step(self):
        return self._once("eval_step")


@contextlib.contextmanager
def shared_programs():
    """Lets the runs of this process share the programs of equal configs.

    Not for tests that change what a program is made from.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (run, trained_model):
            make = module.make
            patch.setattr(module, "make", lambda c, m=make: SharedExperiment(**vars(m(c))))
        yield


def train_once(name: str, root: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a run below `root`, which the first process that asks for it trains.

    Others wait for it. What a killed process has left is thrown away.
    """
    root.mkdir(exist_ok=True)
    folder = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed, or the process has ended
        if not folder.exists():
            unfinished = root / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            # Not what the test at hand looks for.
            with contextlib.redirect_stdout(io.StringIO()), shared_programs():
                loop.run(CONFIGS[name](), unfinished)
            unfinished.rename(folder)
    return folder


def of_a_process(devices: int = 8) -> dict[str, str]:
    """The environment of a child process that trains on so many devices."""
    flags = re.sub(r"(device_count)=\d+", rf"\1={devices}", os.environ["XLA_FLAGS"])
    return os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def rows(folder: str | os.PathLike) -> list[dict]:
    """The lines of a run's journal, without what tells how fast it was."""
    found = read(pathlib.Path(folder) / "metrics.jsonl")
    return [{name: x for name, x in row.items() if name not in SPEEDS} for row in found]


def results(folder: str | os.PathLike) -> dict[str, float]:
    """What `loop.run` has returned at the end of a run."""
    prefix = "validation/"
    last = [row for row in rows(folder) if any(name.startswith(prefix) for name in row)][-1]
    return {name.removeprefix(prefix): x for name, x in last.items() if name.startswith(prefix)}


@functools.cache
def _shapes():
    return experiment.make(small()).abstract_state()


def last_checkpoint(
    folder: str | os.PathLike, shapes: TrainState | None = None
) -> tuple[int, dict[str, np.ndarray]]:
    """(its step, {path: array}) of a run of `small`, of any placement; none may be damaged.

    Parameters, averaged parameters, the optimiser's state, the network's state; `shapes` are those
    of a run with another optimiser.
    """
    with Checkpoints(pathlib.Path(folder) / "checkpoints", read_only=True) as checkpoints:
        found = checkpoints.restore(shapes or _shapes())
        assert checkpoints.damaged == []
    leaves = jax.tree_util.tree_leaves_with_path(found.state)
    return found.step, {path_of(keys): np.asarray(x) for keys, x in leaves}


def assert_same_run(folder: str | os.PathLike, expected: str | os.PathLike) -> None:
    """Two runs of `small` have written the same lines, and end in the same bits."""
    assert rows(folder) == rows(expected)
    (step, ours), (last, theirs) = last_checkpoint(folder), last_checkpoint(expected)
    assert step == last
    assert ours.keys() == theirs.keys()
    assert [path for path, x in ours.items() if x.tobytes() != theirs[path].tobytes()] == []
