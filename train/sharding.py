"""Fully sharded data parallelism: what is split at rest is gathered where it is used.

Any large array of a state is cut along one axis by a rule that knows nothing of the model. Haiku
then gathers each parameter at the moment that a module asks for it, so that a device holds one
layer's whole parameters at a time. The table shows what lies where.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from perceiver.processor import is_stacked

Tree = Any
# Leaves with fewer elements are replicated: gathering one costs a collective, and all the biases
# and norms of a 200M-parameter model together are under a megabyte.
MIN_SPLIT_ELEMENTS = 4096


def split(path: str, shape: tuple[int, ...], devices: int, axis_name: str) -> P:
    """Splits an array along its largest axis that divides evenly; replicates it otherwise.

    Optimiser moments have the shapes of their parameters, and the names of those in their paths,
    so they are split alike. The axis of stacked layers is never split: the scan over layers reads
    one layer at a time, and that layer would live on one device.

    Args:
      path: words between slashes, as `path_of` makes them; a word "layers" marks a stacked array.
      shape: of the whole array.
      devices: number of parts.
      axis_name: of the mesh axis to split over.
    """
    if math.prod(shape) < MIN_SPLIT_ELEMENTS:
        return P()
    first = 1 if is_stacked(path) else 0
    axes = [axis for axis in range(first, len(shape)) if shape[axis] % devices == 0]
    if not axes:
        return P()
    widest = max(axes, key=lambda axis: shape[axis])
    return P(*(axis_name if axis == widest else None for axis in range(widest + 1)))


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
        f"{row.path:{width}}  {row.shape!s:>20}  {_axes(row.spec):>12}  {row.bytes_per_device:>14,}"
        for row in rows
    ]
    total = sum(row.bytes_total for row in rows)
    per_device = sum(row.bytes_per_device for row in rows)
    return "\n".join(
        [
            f"{'array':{width}}  {'shape':>20}  {'split':>12}  {'bytes / device':>14}",
            *lines,
            f"{len(rows)} arrays, {total:,} bytes in all, {per_device:,} on each device",
        ]
    )


def _axes(spec: P) -> str:
    """`P(None, "data")` -> "axis 1", `P()` -> "replicated"."""
    split = [str(axis) for axis, name in enumerate(spec) if name is not None]
    return f"axis {', '.join(split)}" if split else "replicated"
