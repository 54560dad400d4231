"""Sequence parallelism: the elements of a byte array split over devices.

Each device attends to its share of every segment (a block of rows of a grid); the shares are
merged by log-sum-exp, so only queries, results and their gradients cross the network, never the
inputs: what an attention to M elements on n devices exchanges does not depend on M.
"""

import dataclasses
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec

from perceiver.cross_attention.merge import PartialSoftmax, merge_across
from perceiver.nn.byte_array import Segment
from perceiver.nn.positions import Dense, PerExample, SeparableFourier

FEW_ELEMENTS = 1024  # that every device may attend to, if they do not divide


@dataclasses.dataclass(frozen=True)
class Sequence:
    """Which mesh axis the elements are split over (and which one, or which, the batch, if any)."""

    mesh: jax.sharding.Mesh
    axis: str = "sequence"
    batch_axis: str | tuple[str, ...] | None = None

    def __post_init__(self):
        batch = (self.batch_axis,) if isinstance(self.batch_axis, str) else self.batch_axis or ()
        for name in (self.axis, *batch):
            if name not in self.mesh.axis_names:
                raise ValueError(f"the mesh has axes {self.mesh.axis_names}, none named {name!r}")

    @property
    def devices(self) -> int:
        """How many devices share the elements of an example."""
        return self.mesh.shape[self.axis]

    def splits(self, segment: Segment) -> bool:
        """Whether a segment is split; few elements are attended to whole by every device.

        Raises:
          ValueError: many elements whose first axis does not divide over the devices.
        """
        rows, devices = segment.dims[0], self.devices
        if rows % devices and segment.size > FEW_ELEMENTS:
            raise ValueError(
                f"segment {segment.name!r}: {rows} rows of a {segment.dims} grid cannot be divided "
                "evenly "
                f"over {devices} devices of mesh axis {self.axis!r}; pad it to a multiple and "
                "mask the rest"
            )
        return rows % devices == 0


def attend_split(
    attend: Callable[..., PartialSoftmax], sequence: Sequence, segment: Segment, *replicated
) -> PartialSoftmax:
    """Runs `attend(segment, *replicated)` with the segment's elements split over devices.

    Args:
      attend: maps a segment and arrays that lead with the batch axis, to a part.
      sequence: the mesh axis.
      segment: all of it; its arrays are split along M, their positions with them.
      *replicated: queries [B, ...], or trees of weights without a batch axis.

    Returns:
      The part for all elements, the same on all devices of the axis.
    """
    batch = sequence.batch_axis

    def local(segment, *replicated):
        return merge_across(attend(segment, *replicated), sequence.axis)

    def spec(tree):  # queries are arrays, weights are tuples of arrays
        return PartitionSpec(batch) if isinstance(tree, jax.Array) else PartitionSpec()

    # Without the check of varying axes: the custom gradients of the paths do not speak of them.
    return jax.shard_map(
        local,
        mesh=sequence.mesh,
        in_specs=(_specs(segment, sequence), *map(spec, replicated)),
        out_specs=PartitionSpec(batch),
        check_vma=False,
    )(segment, *replicated)


def _specs(segment: Segment, sequence: Sequence) -> Segment:
    """A segment with a PartitionSpec in place of each array."""
    split = PartitionSpec(sequence.batch_axis, sequence.axis)
    positions = segment.positions
    if isinstance(positions, SeparableFourier):
        others = (PartitionSpec(),) * (len(positions.tables) - 1)
        positions = SeparableFourier((PartitionSpec(sequence.axis), *others))
    elif isinstance(positions, Dense):
        positions = dataclasses.replace(positions, table=PartitionSpec(sequence.axis))
    elif isinstance(positions, PerExample):
        positions = PerExample(split)
    fields = {
        name: split
        for name in ("content", "mask", "inverse_std")
        if getattr(segment, name) is not None
    }
    if segment.constant is not None:
        fields["constant"] = PartitionSpec()
    return dataclasses.replace(segment, positions=positions, **fields)
