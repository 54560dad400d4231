"""Fully sharded data parallelism: what is split at rest is gathered where it is used.

Large arrays of a state are cut along one axis, by a short table of rules (`RULES`). Haiku then
gathers each parameter at the moment that a module asks for it, so that a device holds one layer's
whole parameters at a time. `format_table` shows what lies where.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from perceiver.model.processor import STACK

Tree = Any
# Leaves with fewer elements are replicated: gathering one costs a collective, and all the biases
# and norms of a 200M-parameter model together are under a megabyte.
MIN_SPLIT_ELEMENTS = 4096

WIDEST = "widest"  # the largest axis that divides evenly; of equal ones the first
WIDEST_INNER = "widest inner"  # the same, but never axis 0
WHOLE = "whole"  # replicated


class Rule(NamedTuple):
    """Where the arrays of some paths are cut."""

    pattern: str  # a regular expression that is found in the path
    cut: str | int  # WIDEST, WIDEST_INNER, WHOLE, or the number of an axis


# The first rule that matches holds. Optimiser moments and averages have the shapes of their
# parameters, and the names of those in their paths, so they are cut alike.
RULES = (
    # Split by channels, the gradient of a look-up would move all channels of a batch of tokens.
    Rule(r"(^|/)embedding/table$", 0),
    # The scan over stacked layers reads one at a time, which would live on one device.
    Rule(rf"(^|/){STACK}(/|$)", WIDEST_INNER),
    Rule(r"", WIDEST),
)


def split(
    path: str,
    shape: tuple[int, ...],
    parts: int,
    axis_name: str,
    rules: Sequence[Rule] = RULES,
) -> P:
    """Returns how an array is cut. Small ones, and what does not divide evenly, stay whole.

    Args:
      path: words between slashes, as `path_of` makes them.
      shape: of the whole array.
      parts: size of the mesh axis to split over.
      axis_name: its name.
      rules: what is cut where; arrays that none matches stay whole.
    """
    cut = next((rule.cut for rule in rules if re.search(rule.pattern, path)), WHOLE)
    if cut == WHOLE or parts == 1 or math.prod(shape) < MIN_SPLIT_ELEMENTS:
        return P()
    axes = [cut] if isinstance(cut, int) else range(cut == WIDEST_INNER, len(shape))
    axes = [axis for axis in axes if shape[axis] % parts == 0]
    if not axes:
        return P()
    chosen = max(axes, key=lambda axis: shape[axis])
    return P(*(axis_name if axis == chosen else None for axis in range(chosen + 1)))


def gather_at_use(fn: Callable, mesh: Mesh) -> Callable:
    """Makes each Haiku parameter whole on all devices of `mesh` when a module in `fn` reads it.

    Left to itself, the compiler sees a matrix product whose operands are split over the same
    devices, one along its rows and one along its channels, and often prefers to gather the
    activations: the whole batch on each device. Asking for whole parameters keeps every example on
    its device. Inside a scan over stacked layers it is one layer that is gathered, and again in the
    backward pass where the layer is rematerialised.
    """
    whole = NamedSharding(mesh, P())

    # The constraint must not hold for the cotangent too: gradients may stay in parts.
    @jax.custom_vjp
    def gather(x):
        return jax.lax.with_sharding_constraint(x, whole)

    gather.defvjp(lambda x: (gather(x), None), lambda _, cotangent: (cotangent,))

    def get(next_getter, value, context):
        del context
        return next_getter(gather(value))

    def wrapped(*args):
        def run():
            with hk.custom_getter(get):
                return fn(*args)

        # Haiku allows getters inside a transformed function only; this one has no parameters.
        return hk.transform(run).apply({}, None)

    return wrapped


def path_of(keys: Sequence[Any]) -> str:
    """A leaf's path in a pytree as words between slashes: "params/encoder/attend/query/w"."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


class ShardingRow(NamedTuple):
    """How one array of a state lies on the devices."""

    path: str
    shape: tuple[int, ...]
    spec: P
    bytes_total: int
    bytes_per_device: int


def sharding_table(state: Tree) -> list[ShardingRow]:
    """One row for each leaf of a state, or of `Placement.abstract`."""

    def row(keys, x):
        per_device = math.prod(x.sharding.shard_shape(x.shape))
        itemsize = x.dtype.itemsize
        return ShardingRow(
            path_of(keys), x.shape, x.sharding.spec, x.size * itemsize, per_device * itemsize
        )

    return [row(keys, x) for keys, x in jax.tree_util.tree_leaves_with_path(state)]


def format_table(rows: Sequence[ShardingRow]) -> str:
    """`sharding_table` as text: a line for each row, and the totals."""
    width = max((len(row.path) for row in rows), default=0)
    lines = [
        f"{row.path:{width}}  {row.shape!s:>20}  {_axes(row.spec):>14}  {row.bytes_per_device:>14,}"
        for row in rows
    ]
    total = sum(row.bytes_total for row in rows)
    per_device = sum(row.bytes_per_device for row in rows)
    return "\n".join(
        [
            f"{'array':{width}}  {'shape':>20}  {'split':>14}  {'bytes / device':>14}",
            *lines,
            f"{len(rows)} arrays, {total:,} bytes in all, {per_device:,} on each device",
        ]
    )


def _axes(spec: P) -> str:
    """`P(None, "fsdp")` -> "fsdp on axis 1", `P()` -> "replicated"."""
    split = [f"{name} on axis {axis}" for axis, name in enumerate(spec) if name is not None]
    return ", ".join(split) or "replicated"
