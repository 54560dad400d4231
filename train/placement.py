"""Where arrays live and how a step is compiled: `single`, `pmap` or `sharded`.

A placement takes the pure functions of `train.step` and runs them on one device, data-parallel
with replicated state (`jax.pmap`), or with the state itself split over devices (fully sharded data
parallelism, FSDP: `jax.jit` on a mesh). All three use a mesh with the one axis "data", hold the
state as the same tree of global arrays without a device axis, and give the same trajectory.

What may differ: `pmap` draws dropout masks and mixes pictures on each replica by itself, and a
network that looks across the examples of a batch (batch norm) sees one replica's share under `pmap`
and the whole batch otherwise; its statistics are averaged over replicas after each step.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from train import sharding

Tree = Any
NAMES = ("single", "pmap", "sharded")
AXIS = "data"


def make(name: str, devices: Sequence[jax.Device] | None = None) -> "Placement":
    """A placement by name.

    Args:
      name: "single", "pmap" or "sharded".
      devices: what to run on; all devices of all hosts (for "single" the first one) by default.

    Raises:
      ValueError: unknown name, no or several devices for "single", or "single" on several hosts.
    """
    if name not in NAMES:
        raise ValueError(f"unknown placement {name!r}; choose one of {', '.join(NAMES)}")
    if name == "single":
        if jax.process_count() > 1:
            raise ValueError(
                f"placement 'single' uses one device, but {jax.process_count()} processes run; "
                "choose 'pmap' or 'sharded'"
            )
        devices = jax.devices()[:1] if devices is None else devices
        if len(devices) != 1:
            raise ValueError(
                f"placement 'single' uses one device, got {len(devices)}; "
                "pass one device, or choose 'pmap' or 'sharded'"
            )
    devices = jax.devices() if devices is None else devices
    if not devices:
        raise ValueError(f"placement {name!r} needs at least one device, got none")
    return Placement(name=name, mesh=_make_mesh(devices))


def _make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """The mesh: one axis, each host's devices side by side so that a host feeds adjacent rows."""
    ordered = sorted(devices, key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(ordered), (AXIS,), axis_types=(AxisType.Auto,))


@dataclasses.dataclass(frozen=True)
class Placement:
    """Devices, and how state, batches and steps are laid out on them. Made by `make`."""

    name: str  # one of NAMES
    mesh: Mesh  # axis "data"

    @property
    def devices(self) -> int:
        """Number of devices, over all hosts."""
        return self.mesh.size

    def shardings(self, tree: Tree) -> Tree:
        """Where each leaf of a state lives. Leaves need only a `shape`."""
        return jax.tree_util.tree_map_with_path(
            lambda keys, x: NamedSharding(self.mesh, self._spec(keys, x.shape)), tree
        )

    def abstract(self, init: Callable[..., Tree], *args: Any) -> Tree:
        """What `init(*args)` would return, as `jax.ShapeDtypeStruct`s with shardings."""
        shapes = jax.eval_shape(init, *args)
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            shapes,
            self.shardings(shapes),
        )

    def init(self, init: Callable[..., Tree], *args: Any) -> Tree:
        """Runs `init(*args)` so that each device only ever computes and holds its own part."""
        shardings = self.shardings(jax.eval_shape(init, *args))
        return jax.jit(init, out_shardings=shardings)(*args)

    def place(self, state: Tree) -> Tree:
        """Copies a canonical state, or a tree of host arrays, to where this placement keeps it.

        A copy even where nothing has to move, because a training step donates its state.
        """
        shardings = self.shardings(state)
        moved = jax.device_put(state, shardings)  # shares buffers that are in place already
        copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=shardings)
        return copy(moved)

    def canonical(self, state: Tree) -> Tree:
        """The state as global arrays, the form that any placement and device count can restore.

        `jax.pmap` on several hosts returns arrays that each host believes to own alone; here they
        become one array again, without a copy. Everywhere else the state is in that form already.
        """
        if self.name == "pmap" and jax.process_count() > 1:
            return multihost_utils.host_local_array_to_global_array(state, self.mesh, P())
        return state

    def check_batch(self, batch_size: int, micro_batches: int = 1) -> None:
        """Raises a ValueError unless a (global) batch splits evenly over the devices.

        Args:
          batch_size: examples in one batch, over all hosts.
          micro_batches: pieces that each device works through its share in.
        """
        unit = self.devices * micro_batches
        if batch_size > 0 and micro_batches > 0 and batch_size % unit == 0:
            return
        if micro_batches < 1:
            raise ValueError(f"micro_batches must be at least 1, got {micro_batches}")
        lower = batch_size // unit * unit
        nearest = f"{lower} or {lower + unit}" if lower > 0 else f"{unit}"
        pieces = f" x {micro_batches} micro-batches" if micro_batches > 1 else ""
        raise ValueError(
            f"batch size {batch_size} does not divide evenly over {self.devices} "
            f"device{'s' if self.devices > 1 else ''}{pieces} (placement {self.name!r}); "
            f"use a multiple of {unit}, such as {nearest}"
        )

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Sends this host's part of a batch to its devices.

        Args:
          batch: arrays [B / hosts, ...], all with the same leading axis.

        Returns:
          Arrays split along "data": [B, ...] global, or for "pmap" [local devices, b, ...].
        """
        sizes = {name: len(x) for name, x in batch.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"all arrays of a batch need the same leading axis, got {sizes}")
        local = self.mesh.local_mesh if self.name == "pmap" else self.mesh
        self.check_batch(next(iter(sizes.values())) * jax.process_count())
        if self.name == "pmap":
            batch = {k: x.reshape(local.size, -1, *x.shape[1:]) for k, x in batch.items()}
            return jax.device_put(dict(batch), NamedSharding(local, P(AXIS)))
        rows = NamedSharding(self.mesh, P(AXIS))
        if jax.process_count() == 1:
            return jax.device_put(dict(batch), rows)
        return {k: jax.make_array_from_process_local_data(rows, x) for k, x in batch.items()}

    def compile_train(self, make_step: Callable[..., Callable]) -> Callable:
        """Compiles a training step, which then consumes (donates) the state it is given.

        Args:
          make_step: `make_step(mean=..., replica=...) -> step`: `train.step.make_train_step` with
            everything else bound.

        Returns:
          `step(state, batch) -> (state, sums)` on what `init` and `put` return. Under `pmap` the
          sums are means over replicas: their ratios are the same everywhere, they themselves not.
        """
        if self.name == "pmap":
            step = make_step(mean=_replica_mean, replica=lambda: jax.lax.axis_index(AXIS))
            return self._pmap(step, out_axes=(None, None), donate_argnums=0)

        # Pinning the gradients too lets each device reduce only the part that it will apply.
        step = self._gather_at_use(make_step(mean=self._constrain, replica=lambda: 0))

        def constrained(state, batch):
            state, sums = step(state, batch)
            return self._constrain(state), sums

        return jax.jit(constrained, donate_argnums=0)

    def compile_eval(self, step: Callable) -> Callable:
        """Compiles an evaluation step `(state, batch) -> sums`; the sums are of the whole batch."""
        if self.name == "pmap":
            return self._pmap(
                lambda state, batch: jax.lax.psum(step(state, batch), AXIS), out_axes=None
            )
        return jax.jit(self._gather_at_use(step))

    def compile_predict(self, step: Callable) -> Callable:
        """Compiles `(state, batch) -> (sums, rows)`; both are of the whole batch.

        Rows are arrays [B, ...] that stay where their examples are; `rows` brings them home.
        """
        if self.name == "pmap":

            def reduced(state, batch):
                sums, rows = step(state, batch)
                return jax.lax.psum(sums, AXIS), rows

            return self._pmap(reduced, out_axes=(None, 0))
        return jax.jit(self._gather_at_use(step))

    def rows(self, rows: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
        """Returns the rows of `compile_predict` as host arrays [B, ...], in the batch's order.

        Raises:
          ValueError: there are several hosts, of which each has a part.
        """
        if jax.process_count() > 1:
            raise ValueError("single examples are looked at on one host; evaluate in one process")
        fetched = jax.device_get(dict(rows))
        if self.name == "pmap":
            return {k: x.reshape(-1, *x.shape[2:]) for k, x in fetched.items()}
        return fetched

    def settled(self, step: Callable) -> Callable:
        """Makes a compiled step wait for its result where virtual CPU devices share the cores.

        Their collectives meet in the threads of one pool: steps queued behind each other starve it.
        """
        if self.devices == 1 or self.mesh.devices.flat[0].platform != "cpu":
            return step
        return lambda *args: jax.block_until_ready(step(*args))

    def fetch(self, sums: Mapping[str, tuple]) -> dict[str, tuple[float, float]]:
        """Brings metric sums to the host, waiting for the steps that compute them."""
        fetched = jax.device_get(dict(sums))
        return {name: (float(total), float(weight)) for name, (total, weight) in fetched.items()}

    def _pmap(self, step: Callable, **options: Any) -> Callable:
        # The state has no device axis: `None` hands every replica the same replicated array. It
        # costs no more per step than a leading axis, and checkpoints need no conversion.
        devices = list(self.mesh.devices.flat)
        return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), devices=devices, **options)

    def _spec(self, keys: Sequence[Any], shape: tuple[int, ...]) -> P:
        if self.name != "sharded":
            return P()
        return sharding.split(sharding.path_of(keys), shape, self.devices, AXIS)

    def _gather_at_use(self, step: Callable) -> Callable:
        return sharding.gather_at_use(step, self.mesh) if self.name == "sharded" else step

    def _constrain(self, tree: Tree) -> Tree:
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))


def _replica_mean(tree: Tree) -> Tree:
    """Mean over replicas. Integers (counters) are equal on all of them and stay integers."""

    def mean(x):
        reduce = jax.lax.pmean if jnp.issubdtype(x.dtype, jnp.inexact) else jax.lax.pmax
        return reduce(x, AXIS)

    return jax.tree.map(mean, tree)
