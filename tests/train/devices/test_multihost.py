"""One, two and four processes of eight devices in all take the same steps, however they split them.

A real Perceiver on the digits, through the real pipeline. Each layout starts from a checkpoint of
one process, and takes its last step from the checkpoint that another layout has saved, of other
processes too: the chain goes through all of them.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[3]
SCRIPT = ROOT / "tests" / "train" / "multihost.py"
TIMEOUT = 400  # seconds for one set of processes
# processes -> its layouts, each with the one whose checkpoint it takes over
SETS = {
    1: ("1/single", "1/pmap<1/single", "1/data-sequence<1/pmap"),
    2: ("2/pmap<1/data-sequence", "2/data-fsdp<2/pmap", "2/data-sequence<2/data-fsdp"),
    4: ("4/pmap<2/data-sequence", "4/fsdp<4/pmap", "4/sequence<4/fsdp"),
}
LAYOUTS = [words.partition("<")[0] for layouts in SETS.values() for words in layouts]
# Hosts of a sequence load the same rows: name -> shares of a batch.
SHARES = {"4/sequence": 1}
# Compiling takes most of the time of this test; running next to none.
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# Relative to the largest entry of each array: sums over devices are taken in another order.
TOLERANCE = 2e-4


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def train(folder, processes, layouts):
    """Runs the processes of one set side by side; fails with what they said."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // processes} {FAST_COMPILE}",
        "PYTHONPATH": str(ROOT),
    }
    port, children = free_port(), []
    try:
        for index in range(processes):
            words = [sys.executable, str(SCRIPT), str(port), str(processes), str(index)]
            log = (folder / f"{processes}-{index}.log").open("w+")
            child = subprocess.Popen(
                [*words, str(folder), *layouts],
                env=environment,
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


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{layout: (facts, parameters)} of all sets, one set after the other."""
    folder = tmp_path_factory.mktemp("multihost")
    for processes, layouts in SETS.items():
        (folder / str(processes)).mkdir()
        train(folder, processes, layouts)
    found = {}
    for name in LAYOUTS:
        with np.load(folder / f"{name}.npz") as arrays:
            arrays = dict(arrays)
        found[name] = json.loads(str(arrays.pop("facts"))), arrays
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_processes_train_like_one_device(results, name):
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
