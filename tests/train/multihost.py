"""One of several processes that train a real Perceiver together; started by test_multihost.py.

Usage: python tests/train/multihost.py PORT PROCESSES INDEX FOLDER LAYOUT[<BEFORE] ...

Each layout starts from the checkpoint FOLDER/start, takes two steps, saves them, and takes the
third from the checkpoint that the layout BEFORE (of these or of other processes) has saved. What
came of it is written to FOLDER/LAYOUT.npz. The layout "single" makes FOLDER/start.
"""

import contextlib
import json
import pathlib
import sys

import jax
import numpy as np

from configs import digits
from perceiver.weights.mapping import flatten
from tests.train import together
from train import evaluate, experiment, export
from train.checkpoint.checkpoint import Checkpoints
from train.devices import cluster
from train.guard.broken_examples import BrokenExamples
from train.guard.preemption import Preemption

STEPS = 2  # before, and one more after, the change of layouts
# name -> placement and sizes of data, fsdp, sequence
LAYOUTS = {
    "single": ("single", (1, -1, 1)),
    "pmap": ("pmap", (1, -1, 1)),
    "fsdp": ("sharded", (1, 8, 1)),
    "data-fsdp": ("sharded", (2, 4, 1)),
    "data-sequence": ("sharded", (2, 1, 4)),
    "sequence": ("sharded", (1, 1, 8)),
}


def make_config(layout):
    c = digits.get_config("perceiver,smoke")
    placement, sizes = LAYOUTS[layout]
    c.placement = placement
    c.mesh.update(data=sizes[0], fsdp=sizes[1], sequence=sizes[2])
    c.model.update(cross_path="separable", layers=1, blocks=1, latent_channels=64)
    c.model.update(encoders=(0,), processors=(0,))
    c.data.update(batch_size=16, eval_batch_size=304)  # 599 are held out: the last batch is padded
    c.optim.update(name="adamw", lr=1e-2, eps=1e-4, weight_decay=0.1, clip_norm=1.0)
    c.optim.schedule = "constant"
    c.train.steps = STEPS + 1
    return c


def run(folder, name, before):
    layout = name.rpartition("/")[2]
    this = experiment.make(make_config(layout))
    train, step = this.placement, this.train_step()
    losses = []
    with contextlib.closing(this.batches("train", train=True)) as batches:

        def take(state):
            state, sums = step(state, train.put(next(batches)))
            total, weight = train.fetch(sums)["loss"]
            losses.append(total / weight)
            return state

        def save(where, state):
            with Checkpoints(where) as checkpoints:
                config = this.config.to_dict()
                checkpoints.save(int(state.step), train.canonical(state), batches.state(), config)

        def restore(where):
            with Checkpoints(where, read_only=True) as checkpoints:
                restored = checkpoints.restore(this.abstract_state())
            batches.restore(restored.data_state)
            return restored.state

        if layout == "single":
            save(folder / "start", train.init(this.init_state))
        state = restore(folder / "start")
        for _ in range(STEPS):
            state = take(state)
        save(folder / name, state)
        state = take(restore(folder / before))
    metrics = evaluate.evaluate(this, this.eval_step(), state, BrokenExamples(print), Preemption())
    facts = {
        "losses": losses,
        "metrics": metrics,
        "processes": jax.process_count(),
        "devices": train.devices,
        "host_rows": list(train.host_rows),
    }
    params, _ = export.weights_of(this, state)
    if jax.process_index() == 0:
        np.savez(folder / f"{name}.npz", facts=json.dumps(facts), **flatten(params))


def layout(folder, words):
    name, _, before = words.partition("<")
    run(folder, name, before or name)


def main(port, processes, index, folder, *layouts):
    together.patch()
    cluster.join(f"localhost:{port}", int(processes), int(index), host_timeout=100)
    for words in layouts:
        layout(pathlib.Path(folder), words)


if __name__ == "__main__":
    main(*sys.argv[1:])
