"""Numbers that are not finite: a step that makes some may be skipped, none is ever saved.

A NaN has three sources: the loss (data, or parameters that ran away), its gradient, and the
optimiser, which can make one out of finite gradients. The first two show in a step's own sums, the
third only in what the step leaves behind.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from train.devices.sharding import path_of

Tree = Any
SKIPPED = "skipped"  # 1 for a step that was skipped, else 0
CAUSE = "skipped_by"  # what was not finite in it: a sum of the powers of two below
_CAUSES = {1: "loss", 2: "gradient", 4: "update"}


def all_finite(tree: Tree) -> jax.Array:  # bool []
    """Whether all floating-point numbers of a tree are finite."""
    flags = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree) if _is_float(x)]
    return jnp.stack(flags).all() if flags else jnp.bool_(True)


def unless_finite(before: Any, after: Any, sums: dict) -> tuple[Any, dict]:
    """The outcome of a step, or of no step where a number of it is not finite.

    Args:
      before: the state that the step started from.
      after: the state that it made.
      sums: its metrics {name: (sum, weight)}, "grad_norm" among them, the same on all replicas: so
        is the decision.

    Returns:
      (state, sums). Of a skipped step all sums and weights are 0 and the state is `before` but for
      its `step`, so that the next step has another batch and other randomness; the learning rate,
      which the optimiser counts by itself, waits. Two sums come on top: "skipped", (1, 1) or
      (0, 1), and "skipped_by", for `causes`.
    """
    metrics = {name: pair for name, pair in sums.items() if name != "grad_norm"}
    broken = [~all_finite(x) for x in (metrics, sums["grad_norm"], after)]
    skip = functools.reduce(jnp.logical_or, broken)
    state = jax.tree.map(lambda old, new: jnp.where(skip, old, new), before, after)
    sums = jax.tree.map(lambda x: jnp.where(skip, jnp.zeros_like(x), x), sums)
    cause = sum(bit * flag.astype(jnp.float32) for bit, flag in zip(_CAUSES, broken, strict=True))
    one = jnp.ones(())
    added = {SKIPPED: (skip.astype(jnp.float32), one), CAUSE: (cause, one)}
    return dataclasses.replace(state, step=after.step), sums | added


def causes(code: float) -> str:
    """What was not finite in a skipped step, in words: "loss and gradient".

    An update made of a NaN is one: it is named only where it is the first.
    """
    names = [name for bit, name in _CAUSES.items() if int(code) & bit]
    return " and ".join(names[:-1] if len(names) > 1 and names[-1] == "update" else names)


def broken_arrays(state: Tree, mesh: Mesh) -> list[str]:
    """Paths of the arrays of a state that hold a number which is not finite.

    The training step that stops at a NaN looks at its sums only, which tell what an optimiser does
    one step late. This look reads the whole state once: cheap beside saving it.

    Args:
      state: global arrays (`Placement.canonical`).
      mesh: where they live; all processes must call.
    """
    floats = {
        path_of(keys): x
        for keys, x in jax.tree_util.tree_leaves_with_path(state)
        if _is_float(x) and x.size
    }
    if not floats:
        return []
    flags = jax.device_get(_finite_flags(mesh)(list(floats.values())))
    return [path for path, is_finite in zip(floats, flags, strict=True) if not is_finite]


@functools.cache
def _finite_flags(mesh: Mesh) -> Callable:
    """The compiled `[array, ...] -> bool [number of arrays]`, whole on every device."""
    return jax.jit(
        lambda arrays: jnp.stack([jnp.isfinite(x).all() for x in arrays]),
        out_shardings=NamedSharding(mesh, P()),
    )


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)
