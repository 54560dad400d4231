"""How the queries of a segment are laid out for a loop over chunks, and put together in a chunk."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from perceiver.nn.byte_array import Segment
from perceiver.nn.positions import SeparableFourier


class Chunk(NamedTuple):
    """What belongs to single queries. A grid keeps its last axis: chunks are whole rows of it."""

    content: jax.Array  # [B, W, F], grid [B, R, X, F]
    positions: jax.Array | None  # [1 or B, W, P], grid [1, R, P'] of all axes but the last
    keep: jax.Array | None  # query mask as 0 and 1: [B, W], grid [B, R, X]
    inverse_std: jax.Array | None = None  # separable path: [B, R, X]
    row_scores: jax.Array | None = None  # separable path: [B, R, N]


class Common(NamedTuple):
    """What belongs to all queries of a segment."""

    grid: SeparableFourier | None  # its last table has the positions within a row
    constant: jax.Array | None  # [P]


def is_grid(segment: Segment) -> bool:
    """Whether positions separate into rows and columns; a grid of one axis is a mere list."""
    return isinstance(segment.positions, SeparableFourier) and len(segment.dims) > 1


def take_apart(segment: Segment, query_mask: jax.Array | None) -> tuple[Chunk, Common]:
    """Returns all queries of a segment, in row-major order along axis 1, and what they share."""
    positions, shape = segment.positions, (segment.content.shape[0], segment.size)
    if is_grid(segment):
        last = segment.dims[-1]
        shape = (shape[0], segment.size // last, last)
        positions = row_features(positions)[None]
    elif positions is not None:
        positions = positions.dense()
        positions = jnp.expand_dims(positions, range(3 - positions.ndim))
    chunk = Chunk(
        content=segment.content.reshape(*shape, segment.content.shape[-1]),
        positions=positions,
        keep=None if query_mask is None else query_mask.reshape(shape).astype(jnp.float32),
    )
    return chunk, Common(segment.positions if is_grid(segment) else None, segment.constant)


def form(chunk: Chunk, common: Common) -> jax.Array:  # -> [B, W, E]
    """Concatenates content, positions and constant features, as `Segment.dense` does for all."""
    content, positions = chunk.content, chunk.positions
    if common.grid is not None:
        positions = _grid_features(positions[0], common.grid)[None]  # [1, R, X, P]
    parts = [part for part in (content, positions, common.constant) if part is not None]
    shape = content.shape[:-1]
    x = jnp.concatenate([_broadcast(part.astype(content.dtype), shape) for part in parts], axis=-1)
    return x.reshape(x.shape[0], -1, x.shape[-1])


def row_features(grid: SeparableFourier) -> jax.Array:  # [R, P']
    """Returns the features of all axes but the last, one line for each of their R points."""
    *dims, _ = grid.dims
    tables = []
    for axis, table in enumerate(grid.tables[:-1]):
        others = [i for i in range(len(dims)) if i != axis]
        full = _broadcast(jnp.expand_dims(table, others), tuple(dims))
        tables.append(full.reshape(math.prod(dims), -1))
    return jnp.concatenate(tables, axis=-1)


def _grid_features(rows: jax.Array, grid: SeparableFourier) -> jax.Array:  # [R, P'] -> [R, X, P]
    widths = [table.shape[1] for table in grid.tables[:-1]]
    ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]
    shape = (rows.shape[0], grid.dims[-1])
    axes = [part[:, None] for part in jnp.split(rows, ends, axis=-1)] + [grid.tables[-1]]
    return grid.join(tuple(_broadcast(part, shape) for part in axes))


def _broadcast(part: jax.Array, shape: tuple[int, ...]) -> jax.Array:  # [..., C] -> [*shape, C]
    part = jnp.expand_dims(part, range(len(shape) + 1 - part.ndim))
    return jnp.broadcast_to(part, (*shape, part.shape[-1]))
