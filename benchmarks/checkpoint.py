"""What saving costs: how long it blocks the training loop, how much memory it takes and restoring.

    python -m benchmarks.checkpoint [--parts PART ...] [--model NAME] [--folder DIR] [--smoke]

PART:
  blocks  the quickstart's training (configs/digits.py, its steps and its save_every), with the
          seconds that the main thread spends in saving and waiting, over all seconds
  memory  the training state of a model under LAMB, filled with random bits. A fresh process saves
          it, and changes it in place as the next step would while the save is under way, so that
          old and new state exist at once. Others restore it: on one device, and cut over four. The
          most memory that each process has held is given over the bytes of the state, and every bit
          is compared. It takes the state's bytes twice in memory and once on the disk
"""

import argparse
import contextlib
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, models
from configs import digits
from perceiver.kinds import released, specs
from train import experiment
from train.checkpoint.checkpoint import Checkpoints
from train.devices import placement
from train.devices.sharding import path_of

_TINY = "quickstart"


def blocks(options: argparse.Namespace) -> list[measure.Row]:
    """Returns a row for each round of the quickstart's training."""
    run = experiment.make(digits.get_config("fourier,smoke" if options.smoke else ""))
    config = run.config.train
    state, train_step = run.placement.init(run.init_state), run.train_step()
    rows = []
    for number in range(options.rounds):
        taken = []  # seconds of each save
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
                    taken.append(time.perf_counter() - entered)
            total = time.perf_counter() - began
        row = {"case": f"quickstart, {config.steps} steps, {len(taken)} saves", "round": number + 1}
        row |= {"in saves s": sum(taken), "first save s": taken[0], "all s": total}
        rows.append(row | {"share, %": 100 * sum(taken) / total})
    return rows


def memory(options: argparse.Namespace) -> list[measure.Row]:
    """Returns a row for each process."""
    model, rows = _TINY if options.smoke else options.model, []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for work, devices in (("save", 1), ("restore", 1), ("restore", 4)):
            flags = f"--xla_force_host_platform_device_count={devices}"
            words = ["--serve", work, model, folder]
            with measure.Worker("benchmarks.checkpoint", words, XLA_FLAGS=flags) as worker:
                found = worker.facts
            row = {"case": f"{model} with LAMB, {found['bytes'] / 1e9:.2f} GB", "work": work}
            row |= {"devices": devices, "wall s": found["seconds"], "peak MiB": found["peak_mib"]}
            row |= {"peak / state": found["peak_mib"] * measure.MIB / found["bytes"]}
            rows.append(row | {"note": found["note"]})
    return rows


def _save(model: str, folder: str) -> dict[str, Any]:
    shapes = _make_step(model).state
    state = jax.block_until_ready(jax.tree_util.tree_map_with_path(_bits, shapes))
    size, before = sum(x.nbytes for x in jax.tree.leaves(state)), measure.peak_resident_mib()
    began = time.perf_counter()
    with Checkpoints(folder) as checkpoints:
        if not checkpoints.save(1, state, None, None):
            raise RuntimeError("nothing was saved")
        blocked = time.perf_counter() - began
        next_step = jax.jit(lambda x: x + jnp.ones((), x.dtype), donate_argnums=0)
        leaves, structure = jax.tree.flatten(state)
        del state
        for index in range(len(leaves)):
            leaves[index] = next_step(leaves[index])
        jax.block_until_ready(jax.tree.unflatten(structure, leaves))
        checkpoints.wait()
        seconds = time.perf_counter() - began
    note = f"blocks {blocked:.2f} s; peak before it {before:,.0f} MiB"
    return {"bytes": size, "seconds": seconds, "note": note}


def _restore(model: str, folder: str) -> dict[str, Any]:
    made = _make_step(model)
    layout = placement.make("sharded" if jax.device_count() > 1 else "single")
    began = time.perf_counter()
    with Checkpoints(folder, read_only=True) as checkpoints:
        restored = checkpoints.restore(layout.abstract(made.init)).state
    jax.block_until_ready(restored)
    seconds, peak = time.perf_counter() - began, measure.peak_resident_mib()
    leaves = jax.tree_util.tree_leaves_with_path(restored)
    for (keys, x), wanted in zip(leaves, jax.tree.leaves(made.state), strict=True):
        if np.asarray(x).tobytes() != np.asarray(_bits(keys, wanted)).tobytes():
            raise AssertionError(f"{path_of(keys)} came back changed")
    size = sum(x.nbytes for _, x in leaves)
    return {"bytes": size, "seconds": seconds, "note": "every bit came back", "peak_mib": peak}


def _make_step(model: str) -> models.Step:
    spec = digits.get_config().model.to_dict() if model == _TINY else released.MODELS[model]
    return models.make_step(specs.parse(spec), 1)


def _bits(keys: Any, shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns finite numbers of random bits, drawn from the name of an array."""
    seed = int.from_bytes(path_of(keys).encode()[-8:], "little") % 2**31
    if not jnp.issubdtype(shape.dtype, jnp.floating):
        return jnp.full(shape.shape, seed % 100, shape.dtype)
    return _uniform(jax.random.key(seed, impl="rbg"), shape.shape, shape.dtype)


_uniform = jax.jit(jax.random.uniform, static_argnums=(1, 2))
PARTS = {"blocks": blocks, "memory": memory}


def main() -> None:
    """Prints a table for each part."""
    parser = measure.parser(__doc__, rounds=1, parts=PARTS)
    parser.add_argument("--model", default="masked-lm-bytes-plus", help="of perceiver.released")
    parser.add_argument("--folder", help="on the disk to measure; a temporary one by default")
    parser.add_argument("--serve", nargs=3, help="used by the processes it starts")
    options = parser.parse_args()
    if options.serve:
        work, *where = options.serve
        found = {"save": _save, "restore": _restore}[work](*where)
        measure.serve(**{"peak_mib": measure.peak_resident_mib()} | found)
        return
    measure.start(options)
    for part in options.parts:
        measure.show(PARTS[part](options))


if __name__ == "__main__":
    main()
