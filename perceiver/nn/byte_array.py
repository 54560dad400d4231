"""The byte array: what a Perceiver attends to, concatenated only if somebody asks.

A `ByteArray` is a tuple of `Segment`s, one per modality. A segment keeps content, positions,
constant features and mask apart; `dense()` puts them together into the [B, M, C] array of the
papers, and thereby *defines* what every faster cross-attention must equal.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from perceiver.nn.positions import Dense, PerExample, Positions, SeparableFourier


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segment:
    """One modality. Channels, in order: content, positions, constant."""

    content: jax.Array  # [B, M, F], or a grid [B, *dims, F]
    positions: Positions | None = None
    constant: jax.Array | None = (
        None  # [P]: features that all elements share (a modality's padding vector)
    )
    mask: jax.Array | None = None  # [B, M] bool, True = real; None = all real
    name: str = dataclasses.field(default="inputs", metadata={"static": True})
    inverse_std: jax.Array | None = None  # [B, M], see cross_attention.statistics

    @property
    def dims(self) -> tuple[int, ...]:
        return self.content.shape[1:-1]

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def channels(self) -> int:
        positions = self.positions.channels if self.positions is not None else 0
        constant = self.constant.shape[0] if self.constant is not None else 0
        return self.content.shape[-1] + positions + constant

    def without_masked(self) -> "Segment":
        """Returns it with zeros where the mask excludes an element: NaN there must not count."""
        if self.mask is None:
            return self
        batch, size = self.mask.shape

        def real(x):  # [B, M or *dims, ...]
            mask = self.mask if x.shape[1] == size else self.mask.reshape(batch, *self.dims)
            return jnp.where(jnp.expand_dims(mask, range(mask.ndim, x.ndim)), x, 0)

        positions, inverse_std = self.positions, self.inverse_std
        return dataclasses.replace(
            self,
            content=real(self.content),
            positions=PerExample(real(positions.features))
            if isinstance(positions, PerExample)
            else positions,
            inverse_std=None if inverse_std is None else real(inverse_std),
        )

    def dense(self) -> jax.Array:  # [B, M, C]
        batch = self.content.shape[0]
        parts = [self.content.reshape(batch, self.size, self.content.shape[-1])]
        if self.positions is not None:
            parts.append(self.positions.dense())
        if self.constant is not None:
            parts.append(self.constant)
        parts = [part.astype(self.content.dtype) for part in parts]
        return jnp.concatenate([_broadcast(part, batch, self.size) for part in parts], axis=-1)


def _broadcast(
    part: jax.Array, batch: int, size: int
) -> jax.Array:  # [C], [M, C] or [B, M, C] -> [B, M, C]
    part = jnp.expand_dims(part, range(3 - part.ndim))
    return jnp.broadcast_to(part, (batch, size, part.shape[-1]))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ByteArray:
    """All segments of a batch; `ByteArray.of(...)` makes one and checks that they fit."""

    segments: tuple[Segment, ...]
    # A cross_attention.Sequence where the elements are split over devices.
    sequence: Any = dataclasses.field(default=None, metadata={"static": True})

    @classmethod
    def of(cls, *segments: Segment) -> "ByteArray":
        """Makes a byte array.

        Raises:
          ValueError: segments differ in batch or channels, or a segment's positions or mask do not
          fit its content.
        """
        if not segments:
            raise ValueError("a byte array needs at least one segment")
        for segment in segments:
            _check(segment)
        for field in ("batch", "channels"):
            values = [
                (s.name, s.content.shape[0] if field == "batch" else s.channels) for s in segments
            ]
            if len({value for _, value in values}) > 1:
                raise ValueError(
                    f"segments differ in {field}: {values}; pad the narrow ones (constant)"
                )
        return cls(segments)

    @property
    def batch(self) -> int:
        return self.segments[0].content.shape[0]

    @property
    def size(self) -> int:
        """M, the number of elements."""
        return sum(segment.size for segment in self.segments)

    @property
    def channels(self) -> int:
        """C, the number of channels of an element."""
        return self.segments[0].channels

    @property
    def mask(self) -> jax.Array | None:
        """[B, M], True = real; None when no segment has a mask."""
        if all(segment.mask is None for segment in self.segments):
            return None
        masks = [
            jnp.ones((self.batch, s.size), bool) if s.mask is None else s.mask
            for s in self.segments
        ]
        return jnp.concatenate(masks, axis=1)

    def without_masked(self) -> "ByteArray":
        """Returns it with zeros for the elements that masks exclude."""
        segments = tuple(segment.without_masked() for segment in self.segments)
        return dataclasses.replace(self, segments=segments)

    def dense(self) -> jax.Array:  # [B, M, C]
        return jnp.concatenate([segment.dense() for segment in self.segments], axis=1)


def _check(segment: Segment) -> None:
    where = f"segment {segment.name!r} with content {segment.content.shape}"
    if segment.content.ndim < 3:
        raise ValueError(f"{where}: content must be [B, M, F] or a grid [B, *dims, F]")
    if not jnp.issubdtype(segment.content.dtype, jnp.floating):
        raise ValueError(
            f"{where}: content must be floating-point, not {segment.content.dtype}, which would "
            "round the positions; scale or embed it first"
        )
    if 0 in segment.content.shape[:-1]:
        raise ValueError(f"{where}: it has no example or no elements; give at least one of each")
    positions, batch = segment.positions, segment.content.shape[0]
    for kind, array, rank in ((Dense, "table", 2), (PerExample, "features", 3)):
        if isinstance(positions, kind) and getattr(positions, array).ndim != rank:
            shape = getattr(positions, array).shape
            raise ValueError(f"{where}: {kind.__name__} positions need {rank} axes, not {shape}")
    if positions is not None and positions.size != segment.size:
        raise ValueError(f"{where} has {segment.size} elements, but positions for {positions.size}")
    if isinstance(positions, SeparableFourier) and positions.dims != segment.dims:
        raise ValueError(
            f"{where} is a grid {segment.dims}, but its positions are for a grid {positions.dims}"
        )
    if isinstance(positions, PerExample) and positions.features.shape[0] != batch:
        raise ValueError(f"{where}: positions {positions.features.shape} have another batch size")
    if segment.constant is not None and segment.constant.ndim != 1:
        raise ValueError(f"{where}: constant features must be [P], not {segment.constant.shape}")
    if segment.mask is not None and segment.mask.shape != (batch, segment.size):
        raise ValueError(f"{where}: mask must be {(batch, segment.size)}, not {segment.mask.shape}")
    if segment.mask is not None and segment.mask.dtype != jnp.bool_:
        raise ValueError(f"{where}: mask must be bool (True = real), not {segment.mask.dtype}")
