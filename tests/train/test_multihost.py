"""Two processes with two devices each train like one process with one device."""

import functools
import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import optax
import pytest

from train import checkpoint, placement, step

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pmap", "sharded"])
def test_two_processes_train_like_one(tmp_path, toy_task, toy_batch, assert_trees_close, name):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(ROOT),
    }
    script = str(ROOT / "tests" / "train" / "multihost.py")
    children = [
        subprocess.Popen(
            [sys.executable, script, str(port), "2", str(index), name, str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    got = json.loads(outputs[0].splitlines()[-1])

    single, task, optimizer = placement.make("single"), toy_task(), optax.adamw(1e-2)
    init = functools.partial(step.init_state, task, optimizer, 0, toy_batch(2))
    train = single.compile_train(functools.partial(step.make_train_step, task, optimizer, seed=0))
    state, losses = single.init(init), []
    for index in range(4):
        state, sums = train(state, single.put(toy_batch(24, index)))
        total, weight = single.fetch(sums)["loss"]
        losses.append(total / weight)
    held_out = single.compile_eval(step.make_eval_step(task))(state, single.put(toy_batch(24, 9)))

    assert got["devices"] == 4
    np.testing.assert_allclose(got["losses"], losses, rtol=1e-4)
    np.testing.assert_allclose(got["held_out"], single.fetch(held_out)["loss"], rtol=1e-4)
    with checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints:
        restored = checkpoints.restore(single.abstract(init))
    assert restored.step == 4
    assert_trees_close(restored.state, state, rtol=1e-3, atol=2e-5)
