"""Where arrays live and how a step is compiled: `single`, `pmap` or `sharded`.

A placement takes the pure functions of `train.step` and runs them on one device, data-parallel
with replicated state (`jax.pmap`), or with state, batch and the elements of an example split over
the axes of a mesh (`jax.jit`; fully sharded data parallelism, FSDP: `train.devices.mesh`). All
three hold the state as the same tree of global arrays without a device axis, and give the same
trajectory.

What may differ: `pmap` draws dropout masks and mixes pictures on each replica by itself, and a
network that looks across the examples of a batch (batch norm) sees one replica's share under `pmap`
and the whole batch otherwise; its statistics are averaged over replicas after each step.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from perceiver import cross_attention
from train.devices import mesh as meshes
from train.devices import sharding

Tree = Any
NAMES = ("single", "pmap", "sharded")
AXIS = "data"  # of pmap's replicas


def make(
    name: str,
    mesh: Mapping[str, int] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> "Placement":
    """A placement by name.

    Args:
      name: "single", "pmap" or "sharded".
      mesh: of "sharded", the sizes of the axes "data", "fsdp" and "sequence", one of which may be
        -1; None: all devices along "fsdp". Others use no axis but "data".
      devices: what to run on; all devices of all hosts (for "single" the first one) by default.

    Raises:
      ValueError: unknown name, no or several devices for "single", "single" on several hosts, or
        a mesh that the placement cannot have; says what could be.
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
    if name == "sharded":
        placement = Placement(name=name, mesh=meshes.make(devices, mesh))
    else:
        if mesh is not None and mesh["sequence"] != 1:
            raise ValueError(
                f"mesh.sequence={mesh['sequence']} splits the elements of an example over devices, "
                f"which placement {name!r} does not support; choose placement 'sharded', or "
                "mesh.sequence=1"
            )
        line = np.array(meshes.ordered(devices))
        placement = Placement(name=name, mesh=Mesh(line, (AXIS,), axis_types=(AxisType.Auto,)))
    _ = placement.host_rows  # raises where hosts do not fit the mesh
    return placement


@dataclasses.dataclass(frozen=True)
class Placement:
    """Devices, and how state, batches and steps are laid out on them. Made by `make`."""

    name: str  # one of NAMES
    mesh: Mesh  # of the axes mesh.AXES, or of the one axis "data"

    def __str__(self) -> str:
        axes = [f"{name} {size}" for name, size in self.mesh.shape.items() if size > 1]
        if self.name != "sharded" or not axes:
            return self.name
        return f"{self.name} ({' x '.join(axes)})"

    @property
    def devices(self) -> int:
        """Number of devices, over all hosts."""
        return self.mesh.size

    @functools.cached_property
    def host_rows(self) -> meshes.HostRows:
        """Which share of each global batch this host loads; hosts of one sequence share theirs."""
        return meshes.host_rows(meshes.owners(self.mesh), jax.process_index())

    @property
    def sequence(self) -> cross_attention.Sequence | None:
        """How the elements of an example are split over devices; None where they are not."""
        if self.mesh.shape.get("sequence", 1) == 1:
            return None
        return cross_attention.Sequence(self.mesh, "sequence", batch_axis=meshes.BATCH_AXES)

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
        meshes.check_rows(batch_size, micro_batches, self.mesh, f"placement {self.name!r}")

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Sends this host's part of a batch to its devices.

        Args:
          batch: arrays [B / host_rows.count, ...], all with the same leading axis.

        Returns:
          Arrays split by rows: [B, ...] global, or for "pmap" [local devices, b, ...].
        """
        sizes = {name: len(x) for name, x in batch.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"all arrays of a batch need the same leading axis, got {sizes}")
        local = self.mesh.local_mesh if self.name == "pmap" else self.mesh
        rows_in_all = next(iter(sizes.values())) * self.host_rows.count
        self.check_batch(rows_in_all)
        if self.name == "pmap":
            batch = {k: x.reshape(local.size, -1, *x.shape[1:]) for k, x in batch.items()}
            return jax.device_put(dict(batch), NamedSharding(local, P(AXIS)))
        axes = tuple(name for name in meshes.BATCH_AXES if name in self.mesh.axis_names)
        rows = NamedSharding(self.mesh, P(axes))
        if jax.process_count() == 1:
            return jax.device_put(dict(batch), rows)
        return {
            k: jax.make_array_from_process_local_data(rows, x, (rows_in_all, *x.shape[1:]))
            for k, x in batch.items()
        }

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
            raise ValueError(
                "single examples are only available on one host; evaluate in one process"
            )
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
        return sharding.split(sharding.path_of(keys), shape, self.mesh.shape["fsdp"], "fsdp")

    def _gather_at_use(self, step: Callable) -> Callable:
        if self.name != "sharded":
            return step
        step = sharding.gather_at_use(step, self.mesh)

        def on_mesh(*args):
            # Tells modules that XLA will split their arrays (`perceiver.nn.products`).
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return step(*args)

        return on_mesh

    def _constrain(self, tree: Tree) -> Tree:
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))


def _replica_mean(tree: Tree) -> Tree:
    """Mean over replicas. Integers (counters) are equal on all of them and stay integers."""

    def mean(x):
        reduce = jax.lax.pmean if jnp.issubdtype(x.dtype, jnp.inexact) else jax.lax.pmax
        return reduce(x, AXIS)

    return jax.tree.map(mean, tree)
