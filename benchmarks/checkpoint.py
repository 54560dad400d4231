"""What saving costs: how long it blocks the training loop, how much memory it takes and restoring.

    python -m benchmarks.checkpoint [--model masked-lm-bytes-plus] [--folder DIR] [--only PART]

Part "blocks": the quickstart's training (configs/digits.py, its steps and its save_every), with
the seconds that the main thread spends in saving and waiting, over all seconds.

Part "memory": the training state of a model under LAMB, filled with random bits. A fresh process
saves it, and changes it in place as the next step would while the save is under way, so that old
and new state are there at once. Others restore it: on one device, and cut over four. The most
memory that each of them has held (VmHWM, all of the process) is told over the bytes of the state,
and whether every bit came back. It takes the state's bytes twice in memory and once on the disk.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from train.sharding import path_of

from benchmarks import measure, steps, table
from configs import digits
from perceiver import released
from train import experiment, placement
from train.checkpoint import Checkpoints

_TINY = "quickstart"


def main() -> None:
    """Prints both parts."""
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(_CHILDREN[sys.argv[2]](*sys.argv[3:])))
        return
    parser = table.parser(__doc__, rounds=1)
    parser.add_argument("--model", default="masked-lm-bytes-plus", help="of perceiver.released")
    parser.add_argument("--folder", help="on the disk to measure; a temporary one by default")
    parser.add_argument("--only", choices=("blocks", "memory"))
    options = parser.parse_args()
    report = table.Report(options)
    if options.only != "memory":
        report.add(*_blocks(options))
    if options.only != "blocks":
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            report.add(*_memory(options, folder))
    report.write("checkpoint")


def _blocks(options: argparse.Namespace) -> list[table.Row]:
    config = digits.get_config("fourier,smoke" if options.smoke else "")
    run = experiment.make(config)
    config = run.config.train
    state, train_step = run.placement.init(run.init_state), run.train_step()
    rows = []
    for number in range(options.rounds):
        blocked, saves, first = 0.0, 0, 0.0
        with (
            tempfile.TemporaryDirectory(dir=options.folder) as folder,
            Checkpoints(folder, keep=config.keep) as checkpoints,
            contextlib.closing(run.batches("train", train=True)) as batches,
        ):
            state, _ = jax.block_until_ready(train_step(state, run.placement.put(next(batches))))
            began = time.perf_counter()
            for step in range(1, config.steps + 1):
                state, _ = train_step(state, run.placement.put(next(batches)))
                if step % config.save_every == 0 or step == config.steps:
                    jax.block_until_ready(state)  # steps under way are no part of saving
                    entered = time.perf_counter()
                    canonical = run.placement.canonical(state)
                    checkpoints.save(step, canonical, batches.state(), run.config.to_dict())
                    if step == config.steps:
                        checkpoints.wait()
                    blocked += time.perf_counter() - entered
                    saves += 1
                    first = first or blocked
            total = time.perf_counter() - began
        rows.append(
            table.Row(
                case=f"quickstart, {config.steps} steps, {saves} saves",
                work=f"main thread, round {number + 1}",
                form="in the background",
                wall_s=blocked,
                share=blocked / total,
                note=f"of {total:.1f} s; the first save {first:.2f} s, the last to its end",
            )
        )
    return rows


def _memory(options: argparse.Namespace, folder: str) -> list[table.Row]:
    model = _TINY if options.smoke else options.model
    rows = []
    for work, kind, devices in (
        ("save", "save", 1),
        ("restore", "restore", 1),
        ("restore on 4 devices", "restore", 4),
    ):
        found = _child(kind, model, folder, devices)
        bytes_ = found["bytes"]
        if work == "save" and not found["saved"]:
            raise RuntimeError("nothing was saved")
        rows.append(
            table.Row(
                case=f"{model} with LAMB, {bytes_ / 1e9:.2f} GB",
                work=work,
                form="one process",
                wall_s=found["seconds"],
                resident_mib=found["peak_mib"],
                resident_ratio=found["peak_mib"] * measure.MIB / bytes_,
                note=found["note"],
            )
        )
    return rows


def _child(kind: str, model: str, folder: str, devices: int) -> dict[str, Any]:
    flags = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.checkpoint", "child", kind, model, folder],
        cwd=measure.ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(f"{kind} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _save(model: str, folder: str) -> dict[str, Any]:
    state = jax.block_until_ready(_filled(steps.make(_spec(model), 1).state))
    bytes_ = sum(x.nbytes for x in jax.tree.leaves(state))
    before = measure.peak_resident_mib()
    began = time.perf_counter()
    with Checkpoints(folder) as checkpoints:
        saved = checkpoints.save(1, state, None, None)
        blocked = time.perf_counter() - began
        next_step = jax.jit(lambda x: x + jnp.ones((), x.dtype), donate_argnums=0)
        leaves, structure = jax.tree.flatten(state)
        del state
        for index, leaf in enumerate(leaves):
            leaves[index] = next_step(leaf)
            del leaf
        state = jax.tree.unflatten(structure, leaves)
        jax.block_until_ready(state)
        checkpoints.wait()
        seconds = time.perf_counter() - began
    return {
        "bytes": bytes_,
        "saved": saved,
        "seconds": seconds,
        "peak_mib": measure.peak_resident_mib(),
        "note": f"blocks {blocked:.2f} s; before it {before:,.0f} MiB",
    }


def _restore(model: str, folder: str) -> dict[str, Any]:
    made = steps.make(_spec(model), 1)
    layout = placement.make("sharded" if jax.device_count() > 1 else "single")
    began = time.perf_counter()
    with Checkpoints(folder, read_only=True) as checkpoints:
        restored = checkpoints.restore(layout.abstract(made.init)).state
    jax.block_until_ready(restored)
    seconds, peak = time.perf_counter() - began, measure.peak_resident_mib()
    for (keys, x), wanted in zip(
        jax.tree_util.tree_leaves_with_path(restored), jax.tree.leaves(made.state), strict=True
    ):
        if np.asarray(x).tobytes() != np.asarray(_bits(keys, wanted)).tobytes():
            raise AssertionError(f"{path_of(keys)} came back changed")
    bytes_ = sum(x.nbytes for x in jax.tree.leaves(restored))
    return {"bytes": bytes_, "seconds": seconds, "peak_mib": peak, "note": "every bit came back"}


def _spec(model: str) -> dict[str, Any]:
    return digits.get_config().model.to_dict() if model == _TINY else released.MODELS[model]


def _filled(shapes: Any) -> Any:
    return jax.tree_util.tree_map_with_path(_bits, shapes)


def _bits(keys: Any, shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Finite numbers of random bits, drawn from the name of an array."""
    seed = int.from_bytes(path_of(keys).encode()[-8:], "little") % 2**31
    if not jnp.issubdtype(shape.dtype, jnp.floating):
        return jnp.full(shape.shape, seed % 100, shape.dtype)
    return _normal(jax.random.key(seed, impl="rbg"), shape.shape, shape.dtype)


_normal = jax.jit(jax.random.uniform, static_argnums=(1, 2))
_CHILDREN = {"save": _save, "restore": _restore}

if __name__ == "__main__":
    main()
