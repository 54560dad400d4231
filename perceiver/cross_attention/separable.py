"""Attention to a grid whose position features are separable: rows and columns are scored apart.

Fourier features of a grid are, up to the order of channels, [Ty[i], Tx[j]] at (i, j). So the logits
of absorbed queries (see `absorb`) are

    inv[i, j] (g_content . content[i, j] + (g_y . Ty[i]) + (g_x . Tx[j]))

and of the softmax-weighted sum of all features, the part of the positions needs only the sums of
p inv by row and by column, which the caller multiplies by Ty and Tx. The cost of an input and a
query falls from that of all channels to that of the content, and no array holds both inputs and
position features, or both inputs and queries. `grid` has the computation; here, grids of any
number of axes are folded into rows and columns.
"""

import math
from typing import NamedTuple

import jax

from perceiver.cross_attention import grid

_WIDE = 4096  # columns; from here on, a grid with fewer rows is transposed
# Scores of a step. A CPU's should stay within the caches; an accelerator would take longer to
# launch the kernels of a small step than to run them.
_CPU_SCORES = 2**20
_ACCELERATOR_SCORES = 2**26


class Sums(NamedTuple):
    """Softmax-weighted sums over the grid, in float32."""

    content: jax.Array  # [B, Q, F] sum of p inv content
    axes: tuple[jax.Array, ...]  # one [B, Q, n] per axis: sum of p inv over all other axes
    lse: jax.Array  # [B, Q] log-sum-exp of the logits; `NOTHING` where all are masked


def attend(
    content: jax.Array,
    g: jax.Array,
    biases: tuple[jax.Array, ...],
    inverse_std: jax.Array,
    mask: jax.Array | None = None,
    *,
    chunk: int = 0,
    operands: str = "float32",
) -> Sums:
    """Attends to a grid of two or more axes and returns what the value side needs.

    Nothing of Q x M is kept: the backward pass computes the scores again. A query that sees no
    element gets sums of zero, and no gradient. Inside `jax.shard_map`, arguments that do not all
    vary over the same axes need `check_vma=False`.

    Args:
      content: [B, *dims, F], of any floating dtype.
      g: [B, Q, F] absorbed queries, for the content; float32, as are all that follow.
      biases: one [B, Q, n] per axis: absorbed queries times the axis' table.
      inverse_std: [B, M] of the elements; M = prod(dims), the last axis fastest.
      mask: [B, M] bool, True = real; or None.
      chunk: elements per step, rounded to whole rows; 0 is automatic. A row is a line along the
        last axis, unless that is very long and longer than the product of the others.
      operands: "float32" or "bfloat16", of the matrix products; their sums are float32.

    Raises:
      ValueError: shapes that do not fit together, or a grid of one axis.
    """
    _check(content, g, biases, inverse_std, mask)
    batch, *dims, channels = content.shape
    rows, columns = math.prod(dims[:-1]), dims[-1]
    elements = [
        content.reshape(batch, rows, columns, channels),
        inverse_std.reshape(batch, rows, columns),
        None if mask is None else mask.reshape(batch, rows, columns),
    ]
    lines = [_add_outer(biases[:-1]), biases[-1]]
    # A step has at least one row, and sums by column are updated in each: rows must not be long.
    transposed = columns > max(_WIDE, rows)
    if transposed:
        elements = [None if x is None else x.swapaxes(1, 2) for x in elements]
        lines.reverse()
    step = _rows_per_step(elements[1].shape, g.shape[1], chunk)
    z, *sums, lse = grid.attend(grid.Steps(step, operands), elements[0], g, *lines, *elements[1:])
    if transposed:
        sums.reverse()
    return Sums(z, (*_sum_others(sums[0], dims[:-1]), sums[1]), lse)


def _check(content, g, biases, inverse_std, mask) -> None:
    batch, *dims, channels = content.shape
    where = f"separable attention to content {content.shape}"
    if len(dims) < 2:
        raise ValueError(f"{where}: it needs a grid of two or more axes; use path='shared'")
    queries = g.shape[1]
    shapes = [(batch, queries, n) for n in (channels, *dims)]
    given = [g.shape, *(bias.shape for bias in biases)]
    if given != shapes:
        raise ValueError(f"{where}: g and one bias per axis must be {shapes}, not {given}")
    for name, array in (("inverse_std", inverse_std), ("mask", mask)):
        if array is not None and array.shape != (batch, math.prod(dims)):
            raise ValueError(
                f"{where}: {name} must be {(batch, math.prod(dims))}, not {array.shape}; give one "
                "for each element"
            )


def _add_outer(biases: tuple[jax.Array, ...]) -> jax.Array:
    """[B, Q, n] of each axis -> [B, Q, prod(n)], the sum of theirs at each point."""
    total = biases[0]
    for bias in biases[1:]:
        total = (total[..., None] + bias[:, :, None]).reshape(*total.shape[:2], -1)
    return total


def _sum_others(sums: jax.Array, dims: list[int]) -> list[jax.Array]:
    """[B, Q, prod(dims)] -> [B, Q, n] of each axis, summed over all others."""
    sums = sums.reshape(*sums.shape[:2], *dims)
    axes = range(2, sums.ndim)
    return [sums.sum(axis=[other for other in axes if other != axis]) for axis in axes]


def _rows_per_step(shape: tuple[int, int, int], queries: int, chunk: int) -> int:
    batch, rows, columns = shape
    if chunk:
        step = round(chunk / columns)
    elif jax.default_backend() == "cpu":
        step = min(_CPU_SCORES // (batch * columns * queries), grid.FEW_ROWS)
    else:
        step = _ACCELERATOR_SCORES // (batch * columns * queries)
    step = min(max(step, 1), rows)
    return math.ceil(rows / math.ceil(rows / step))  # about as many in the last step as in others
