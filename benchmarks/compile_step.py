"""Compile time and memory of full-size training steps, by XLA's own account.

    python benchmarks/compile_step.py [--batch 2] [--remat none] [NAME ...]

NAME is a key of `perceiver.released.MODELS` (default: imagenet-fourier). The step is the real one:
forward, backward and LAMB in the papers' order on one device. Every array is abstract, so that
nothing is computed.
"""

import argparse
import functools
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp

import data
from configs import common
from perceiver import released
from train import optim, step, tasks

MIB = 2**20


def abstract_step(name: str, batch_size: int, remat: str):
    """Returns (training step, abstract state, abstract batch) of a released model."""
    spec = released.MODELS[name]
    kind = "masked_lm" if spec["kind"] == "masked_lm" else "classification"
    config = common.get_config(kind, spec | {"remat": remat})
    info = data.DatasetInfo(name=name, examples={})
    per_example = {"mask": ((), jnp.bool_)}
    if kind == "classification":
        classes = tuple(map(str, range(spec["classes"])))
        facts = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "image_shape": spec["image_shape"]}
        info = data.DatasetInfo(name=name, examples={}, labels=classes, **facts)
        per_example["label"] = ((), jnp.int32)
    else:
        per_example["targets"] = ((spec["max_length"],), jnp.int32)
        per_example["target_mask"] = ((spec["max_length"],), jnp.bool_)
    task, optimizer = tasks.make(config, info), optim.make(config.optim)
    batch = task.model.example_inputs(batch_size) | {
        key: jax.ShapeDtypeStruct((batch_size, *shape), dtype)
        for key, (shape, dtype) in per_example.items()
    }
    state = jax.eval_shape(functools.partial(step.init_state, task, optimizer, 0, batch))
    return step.make_train_step(task, optimizer, seed=0), state, batch


def main() -> None:
    """Prints one row per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", default=["imagenet-fourier"], metavar="NAME")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--remat", default="none")
    options = parser.parse_args()
    print(
        f"{'model':<28}{'batch':>6}{'trace s':>9}{'compile s':>11}{'state MiB':>11}{'temp MiB':>10}"
    )
    for name in options.names:
        train_step, state, batch = abstract_step(name, options.batch, options.remat)
        began = time.perf_counter()
        lowered = jax.jit(train_step, donate_argnums=0).lower(state, batch)
        traced = time.perf_counter()
        memory = lowered.compile().memory_analysis()
        compiled = time.perf_counter()
        held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / MIB
        print(
            f"{name:<28}{options.batch:>6}{traced - began:>9.1f}{compiled - traced:>11.1f}"
            f"{held:>11.0f}{memory.temp_size_in_bytes / MIB:>10.0f}"
        )


if __name__ == "__main__":
    main()
