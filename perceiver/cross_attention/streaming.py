"""Multi-head attention to many elements: keys and values are formed chunk by chunk and forgotten.

For heads too narrow to absorb the projections (`absorb`). The norm is folded into them instead.
With x the concatenated features of an element, W0 the projections to keys and values, and W the
same after its rows were multiplied by the norm's scale and centred over the channels,

    LN(x) W0 = inv x W + offset W0,    x W = content Wc + positions Wp + constant features Wf

so features are never concatenated, positions that the batch shares are projected once for all
examples, constant features once for all elements. `offset W0` and the biases are the same for all
elements. In the keys they change no weight and are left out: so the key bias gets a gradient of
exactly zero, and the log-sum-exp is that of the absorbed paths, with which it may be merged. In
the values they are added at the end.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from perceiver.cross_attention import online, statistics
from perceiver.cross_attention.absorb import Weights
from perceiver.cross_attention.merge import whole_share, zeros_where_nothing
from perceiver.nn.byte_array import Segment
from perceiver.nn.positions import PerExample, SeparableFourier
from perceiver.nn.products import product


def attend(
    q: jax.Array, segment: Segment, weights: Weights, *, chunk: int = 0, operands: str = "float32"
) -> tuple[jax.Array, jax.Array]:
    """Attends to the normalised, projected elements of one segment.

    Args:
      q: [B, N, H, c] queries, not yet scaled.
      segment: M elements of C channels. Its `inverse_std` is computed if it is None.
      weights: of the norm, the keys and the values.
      chunk: elements at a time; 0 chooses by platform and size.
      operands: dtype of the operands of matrix products.

    Returns:
      y [B, N, H, v] and the log-sum-exp of the logits [B, N, H], both float32. The logits are
      q . k / sqrt(c) less what offset and bias of the keys add to all that a query sees. A query
      that sees no element gets zeros and `merge.NOTHING`.
    """
    batch, n, heads, width = q.shape
    rows, whole = _sort(segment, weights)
    chunks = online.Chunks(
        form=_Form(heads, heads * width, operands),
        size=segment.size,
        channels=weights.value_w.shape[1] // heads,
        length=chunk or online.chunk_size(segment.size, batch * heads * n),
        operands=operands,
    )
    scaled = q.astype(jnp.float32).transpose(0, 2, 3, 1) * width**-0.5  # [B, H, c, N]
    y, lse = online.attend(chunks, scaled, rows, whole, segment.mask)
    y, lse = y.transpose(0, 3, 1, 2), lse.transpose(0, 2, 1)  # [B, N, H, v], [B, N, H]
    common = (weights.offset @ weights.value_w + weights.value_b).reshape(1, 1, heads, -1)
    y = y + whole_share(lse) * common
    return zeros_where_nothing(y, lse), lse


# XLA's CPU backend crashes (jaxlib 0.10.2) in the weight gradient of so short a product, if the
# batch shares it: a sum over the batch that it fuses into the product.
_SHORT = 128


class _Whole(NamedTuple):
    """What every chunk needs, besides its rows."""

    content_w: jax.Array  # [F, H c + H v]
    positions_w: jax.Array  # [P, H c + H v]
    constant: jax.Array  # [H c + H v]: constant features, projected
    grid: SeparableFourier | None  # small tables, from which rows of positions are formed


@dataclasses.dataclass(frozen=True)
class _Form:
    """Forms keys [B, H, W, c] and values [B, H, W, v], without what all elements have in common."""

    heads: int
    key_channels: int  # of all heads together
    operands: str

    def __call__(self, rows: online.Rows, whole: _Whole, start):
        content, inverse_std, positions = rows.own
        if rows.common is not None:
            positions = rows.common[None]  # [1, W, P]
        elif whole.grid is not None:
            positions = rows_of(whole.grid, start, content.shape[1])[None]
        x = product("bwf,fd->bwd", content, whole.content_w, self.operands)
        x = x + whole.constant[None, None]
        if positions is not None:
            if positions.shape[1] < _SHORT:
                positions = jnp.broadcast_to(positions, (*x.shape[:2], positions.shape[2]))
            x = x + product("bwp,pd->bwd", positions, whole.positions_w, self.operands)
        x = x * inverse_std[..., None]  # [B, W, H c + H v]
        return self._split(x[..., : self.key_channels]), self._split(x[..., self.key_channels :])

    def _split(self, x):
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)


def _sort(segment: Segment, weights: Weights) -> tuple[online.Rows, _Whole]:
    """Sorts what keys and values are formed from: arrays of a row for each element, and others."""
    w = jnp.concatenate([weights.key_w, weights.value_w], axis=1) * weights.scale[:, None]
    w = w - w.mean(axis=0, keepdims=True)  # [C, H c + H v]
    content, positions = segment.content, segment.positions
    width = content.shape[-1]
    end = width + (positions.channels if positions is not None else 0)
    constant = jnp.zeros(w.shape[1], w.dtype)
    if segment.constant is not None:
        constant = segment.constant.astype(w.dtype) @ w[end:]
    inverse_std = segment.inverse_std
    if inverse_std is None:
        inverse_std = statistics.inverse_std(segment)
    own = common = grid = None
    if isinstance(positions, SeparableFourier):
        grid = positions
    elif isinstance(positions, PerExample):
        own = positions.features
    elif positions is not None:
        common = positions.table
    content = content.reshape(content.shape[0], segment.size, width)
    return (
        online.Rows(own=(content, inverse_std, own), common=common),
        _Whole(w[:width], w[width:end], constant, grid),
    )


def rows_of(positions: SeparableFourier, start, length: int) -> jax.Array:  # [length, P]
    """Returns rows [start, start + length) of `positions.dense()`, without forming the others."""
    index, axes = start + jnp.arange(length), []
    for table in reversed(positions.tables):  # row-major: the last axis changes fastest
        axes.append(table[index % table.shape[0]])
        index = index // table.shape[0]
    return positions.join(tuple(reversed(axes)))
