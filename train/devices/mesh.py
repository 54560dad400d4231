"""The mesh: which devices share an example, which share the state, and which host feeds which.

A mesh of the `sharded` placement has three axes. Rows of a batch are split over "data" and "fsdp",
the state over "fsdp" alone: "data" counts copies of the state. The devices along "sequence" hold
the same rows and the same state, and split the elements of each example (see
`perceiver.cross_attention.sequence`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "sequence")
BATCH_AXES = AXES[:2]
DEFAULT = {"data": 1, "fsdp": -1, "sequence": 1}
REST = -1  # of one axis: as many as the others leave


class HostRows(NamedTuple):
    """Which share of each global batch a host loads."""

    index: int
    count: int  # of shares; fewer than hosts where several hosts load the same rows


def make(devices: Sequence[jax.Device], sizes: Mapping[str, int] | None = None) -> Mesh:
    """Returns the mesh of the axes `AXES`.

    Devices of a host lie side by side, so that it feeds adjacent rows, and "sequence" is the
    innermost axis: it exchanges most often, so its devices should be neighbours.

    Args:
      devices: all of them.
      sizes: of the axes, such as config.mesh; `DEFAULT` where it is None.

    Raises:
      ValueError: sizes that do not multiply to the number of devices; says what would.
    """
    shape = shape_of(DEFAULT if sizes is None else sizes, len(devices))
    return Mesh(np.array(ordered(devices)).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)


def ordered(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Returns the devices host by host."""
    return sorted(devices, key=lambda device: (device.process_index, device.id))


def shape_of(sizes: Mapping[str, int], devices: int) -> tuple[int, int, int]:
    """Returns the three sizes, with a number in the place of -1."""
    given = {name: int(sizes[name]) for name in AXES}
    told = ", ".join(f"mesh.{name}={size}" for name, size in given.items())
    bad = [name for name, size in given.items() if size < 1 and size != REST]
    if bad:
        raise ValueError(f"{told}: mesh.{bad[0]} must be at least 1, or -1 for the rest")
    open_axes = [name for name, size in given.items() if size == REST]
    if len(open_axes) > 1:
        raise ValueError(f"{told}: only one axis can be -1 (the rest); set the others")
    known = math.prod(size for size in given.values() if size != REST)
    if devices % known or (not open_axes and devices != known):
        remedy = f"set mesh.{(open_axes or ['fsdp'])[0]}=-1, and the others so that they divide"
        raise ValueError(
            f"{told}: the sizes multiply to {known}{' x -1' if open_axes else ''}, which does not "
            f"match {devices} device{'s' if devices > 1 else ''}; {remedy} {devices}"
        )
    return tuple(devices // known if size == REST else size for size in given.values())


def groups(mesh: Mesh) -> np.ndarray:
    """Returns the devices as [groups, devices of a group]; a group shares its rows."""
    return mesh.devices.reshape(-1, mesh.shape.get("sequence", 1))


def check_rows(batch_size: int, micro_batches: int, mesh: Mesh, name: str) -> None:
    """Raises ValueError unless a (global) batch splits evenly; names the nearest sizes that do."""
    parts, members = groups(mesh).shape
    unit = parts * micro_batches
    if batch_size > 0 and micro_batches > 0 and batch_size % unit == 0:
        return
    if micro_batches < 1:
        raise ValueError(f"micro_batches must be at least 1, got {micro_batches}")
    lower = batch_size // unit * unit
    nearest = f"{lower} or {lower + unit}" if lower > 0 else f"{unit}"
    places = f"{parts} device{'s' if parts > 1 else ''}"
    if members > 1:
        places = f"{parts} group{'s' if parts > 1 else ''} of {members} devices"
    pieces = f" x {micro_batches} micro-batches" if micro_batches > 1 else ""
    raise ValueError(
        f"batch size {batch_size} does not divide evenly over {places}{pieces} ({name}); "
        f"use a multiple of {unit}, such as {nearest}"
    )


def owners(mesh: Mesh) -> np.ndarray:
    """Returns the host of each device of `groups`, [groups, devices of a group]."""
    return np.vectorize(lambda device: device.process_index, otypes=[int])(groups(mesh))


def host_rows(owners: np.ndarray, host: int) -> HostRows:
    """Returns which share of a batch a host loads: the rows of the groups that it has a part of.

    Args:
      owners: as the function of this name returns them; group g has the g-th part of the rows.
      host: its process index.

    Raises:
      ValueError: hosts would share rows in part only, or this one has no device of the mesh.
    """
    of_host = {
        int(other): tuple(np.flatnonzero((owners == other).any(axis=1)).tolist())
        for other in np.unique(owners)
    }
    if host not in of_host:
        raise ValueError(
            f"host {host} has none of the mesh's devices; build the mesh of all devices"
        )
    shares = sorted(set(of_host.values()))
    laid_out = [group for share in shares for group in share]
    if laid_out != list(range(len(owners))) or len(set(map(len, shares))) > 1:
        raise ValueError(
            f"mesh.sequence={owners.shape[1]} splits the {len(of_host)} hosts unevenly: hosts "
            "need the same number of devices, and mesh.sequence must divide that number or be a "
            "multiple of it"
        )
    return HostRows(shares.index(of_host[host]), len(shares))
