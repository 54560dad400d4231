"""Processes of eight devices in all take the same steps, however they split them.

A real Perceiver on the digits, through the real pipeline. Each layout starts from a checkpoint of
one process, and takes its last step from the checkpoint that another layout has saved, of other
processes too: the chain goes through all of them.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.train import multihost, runs

SCRIPT = pathlib.Path(multihost.__file__)
TIMEOUT = 400  # seconds for one set of processes
# processes and their layouts, each with the one whose checkpoint it takes over
BY_DAY = (
    (1, ("1/single",)),
    (2, ("2/pmap<1/single", "2/data-fsdp<2/pmap")),
)
# One process again, more of them, and hosts that share a sequence (test_mesh.py: which rows those
# load).
BY_NIGHT = (
    (1, ("1/data-sequence<2/data-fsdp",)),
    (4, ("4/pmap<1/data-sequence", "4/fsdp<4/pmap", "4/sequence<4/fsdp")),
    (2, ("2/data-sequence<4/sequence",)),
    (1, ("1/pmap<2/data-sequence",)),
)
# Hosts of a sequence load the same rows: name -> shares of a batch.
SHARES = {"4/sequence": 1}
# Relative to the largest entry of each array: sums over devices are taken in another order.
TOLERANCE = 2e-4


def names_of(sets):
    return [words.partition("<")[0] for _, layouts in sets for words in layouts]


def train(folder, processes, layouts):
    """Runs the processes of one set side by side; fails with what they said."""
    port, children = runs.free_port(), []
    try:
        for index in range(processes):
            words = [sys.executable, str(SCRIPT), str(port), str(processes), str(index)]
            log = (folder / f"{processes}-{index}.log").open("w+")
            child = subprocess.Popen(
                [*words, str(folder), *layouts],
                env=runs.of_a_process(8 // processes),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
            children.append((child, log))
        for child, _ in children:
            child.wait(TIMEOUT)
    finally:
        for child, log in children:
            child.kill()
            child.wait()
            log.seek(0)
            said = log.read()
            log.close()
            if child.returncode:
                print(f"--- {log.name}\n{said[-4000:]}")
    assert [child.returncode for child, _ in children] == [0] * processes


def train_all(folder, sets):
    """Trains one set after the other, of one process in this one; {layout: (facts, parameters)}."""
    for processes, layouts in sets:
        (folder / str(processes)).mkdir(exist_ok=True)
        if processes > 1:
            train(folder, processes, layouts)
        else:
            for words in layouts:
                multihost.layout(folder, words)
    found = {}
    for name in names_of(sets):
        with np.load(folder / f"{name}.npz") as arrays:
            arrays = dict(arrays)
        found[name] = json.loads(str(arrays.pop("facts"))), arrays
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("multihost")


@pytest.fixture(scope="module")
def by_day(folder):
    return train_all(folder, BY_DAY)


@pytest.fixture(scope="module")
def by_night(folder, by_day):
    return by_day | train_all(folder, BY_NIGHT)


@pytest.mark.parametrize("name", names_of(BY_DAY))
def test_processes_train_like_one_device(by_day, name):
    check(by_day, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", names_of(BY_NIGHT))
def test_more_processes_train_like_one_device(by_night, name):
    check(by_night, name)


def check(results, name):
    facts, params = results[name]
    want, expected = results["1/single"]
    processes = int(name[0])
    assert facts["processes"] == processes
    assert facts["devices"] == (1 if name == "1/single" else 8)
    assert facts["host_rows"] == [0, SHARES.get(name, processes)]
    np.testing.assert_allclose(facts["losses"], want["losses"], rtol=1e-5)
    assert facts["metrics"].keys() == want["metrics"].keys() == {"loss", "accuracy", "top_5"}
    for metric, value in want["metrics"].items():
        assert facts["metrics"][metric] == pytest.approx(value, rel=1e-5), metric
    assert params.keys() == expected.keys()
    for key, x in expected.items():
        if key.endswith("attention/key/b"):
            continue  # its true gradient is zero, and Adam makes steps of the rounding noise
        error = np.abs(params[key] - x).max() / np.abs(x).max()
        assert error < TOLERANCE, f"{key}: {error:.1e}"
