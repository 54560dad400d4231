"""The decoder's cross-attend: many queries read few latents, some queries at a time.

All that happens to a query happens within a chunk: attention, projection, residual, MLP, the final
linear layer. Nothing of the size queries x latents is formed, and of the size queries x channels
only what goes in and out. `query_scores` explains the paths; with one head the values, too, may
absorb a projection, that of the output.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from perceiver.cross_attention import chunks
from perceiver.cross_attention.absorb import Weights
from perceiver.cross_attention.queries import query_scores, softmax
from perceiver.cross_attention.queries.query_layout import Chunk, Common, form, is_grid, take_apart
from perceiver.cross_attention.statistics import inverse_std
from perceiver.nn.byte_array import Segment
from perceiver.nn.compute import Compute
from perceiver.nn.layers import ACTIVATIONS, dot, layer_norm
from perceiver.nn.products import in_order, operand_dtype, product

Affine = tuple[jax.Array, jax.Array]  # w and b of a linear layer, scale and offset of a norm


class QueryWeights(NamedTuple):
    """What a decoder applies to queries and latents."""

    norm: Affine  # [E]
    latents: Weights
    query: Affine  # [E, H c]
    out: Affine  # [H v, E]
    mlp_norm: Affine  # [E]
    hidden: Affine  # [E, widening E]
    mlp_out: Affine  # [widening E, E]
    final: Affine | None  # [E, K]


class _Shared(NamedTuple):
    """What all chunks use, formed once."""

    common: Common
    keys: query_scores.Keys
    values: jax.Array  # [B, H, v, N], or absorbed [B, 1, E, N]
    weights: QueryWeights


def decode(
    segment: Segment,
    latents: jax.Array,
    weights: QueryWeights,
    path: str,
    *,
    heads: int,
    residual: bool,
    activation: str,
    query_mask: jax.Array | None = None,
    compute: Compute = Compute(),
) -> jax.Array:
    """Decodes the queries of one segment.

    Args:
      segment: O queries of E channels.
      latents: [B, N, D].
      weights: of the decoder.
      path: "streaming", "shared" or "separable", as planned.
      heads: H.
      residual: whether attention is added to the query or takes its place.
      activation: of the MLP, one of layers.ACTIVATIONS.
      query_mask: [B, O] bool or None; queries with False read nothing.
      compute: its `chunk` and `operands` matter.

    Returns:
      [B, O, K], or [B, O, E] without a final layer, in the dtype of the queries.
    """
    if path == "separable" and not is_grid(segment):
        path = "shared"  # the table of a list is as long as the list
    step = _Step(
        path=path,
        absorbs_values=_absorbs_values(latents.shape[1], *weights.out[0].shape, heads),
        residual=residual,
        activation=activation,
        operands=operand_dtype(segment.content, compute.operands).name,
    )
    k, v = _keys_and_values(latents, weights.latents, heads, step.operands)
    if step.absorbs_values:
        v = product("bnv,ve->bne", v, weights.out[0], step.operands)
    k, v = _split_heads(k, heads), _split_heads(v, heads)
    keys = query_scores.prepare(path, k, weights.norm, weights.query, segment)
    queries, common = take_apart(segment, query_mask)
    if path == "separable":
        inverse = segment.inverse_std if segment.inverse_std is not None else inverse_std(segment)
        inverse = inverse.reshape(queries.content.shape[:-1])
        queries = queries._replace(inverse_std=inverse, row_scores=keys.rows)
        keys = keys._replace(rows=None)
    size = _chunk_size(segment, heads * latents.shape[1], compute.chunk)
    y = chunks.map_chunks(step, size, _Shared(common, keys, v, weights), queries)
    return y.reshape(y.shape[0], segment.size, y.shape[-1])


def _absorbs_values(latents: int, v_channels: int, channels: int, heads: int) -> bool:
    """Whether values as wide as the queries cost less than projecting what was read."""
    return heads == 1 and latents * channels < v_channels * (latents + channels)


def _keys_and_values(latents, weights: Weights, heads: int, operands: str):
    """[B, N, D] -> [B, N, H c], [B, N, H v], without the key bias."""
    x = layer_norm(latents, weights.scale, weights.offset)
    k = product("bnd,dc->bnc", x, weights.key_w, operands)
    v = product("bnd,dv->bnv", x, weights.value_w, operands)
    # The key bias, which the softmax does not see: but a NaN in it must be seen.
    unseen = jnp.repeat((0 * weights.key_b).reshape(heads, -1).sum(axis=1), k.shape[-1] // heads)
    return k + jnp.broadcast_to(unseen, k.shape), v + jnp.broadcast_to(weights.value_b, v.shape)


def _split_heads(x: jax.Array, heads: int) -> jax.Array:  # [B, N, H c] -> [B, H, c, N]
    x = in_order(x).reshape(*x.shape[:2], heads, -1)
    return x.transpose(0, 2, 3, 1)


def _chunk_size(segment: Segment, scores: int, chunk: int) -> int:
    """Returns the number of queries, or of rows of a grid, to take at a time."""
    floats = scores + 4 * segment.channels  # for one query: its scores, its hidden layers
    size = chunk or chunks.automatic(segment.content.shape[0], floats)
    return max(1, size // segment.dims[-1]) if is_grid(segment) else size


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Step:
    """The whole decoder for a chunk of queries."""

    path: str
    absorbs_values: bool
    residual: bool
    activation: str
    operands: str

    def __call__(self, shared: _Shared, chunk: Chunk) -> jax.Array:  # -> [B, W, K], [B, R, X, K]
        weights, dtype = shared.weights, chunk.content.dtype
        x = form(chunk, shared.common)  # [B, W, E]; where nothing uses it, it is not computed
        y = softmax.attend(self._scores(x, chunk, shared), shared.values, self.operands)
        y = y.swapaxes(1, 2).reshape(*x.shape[:2], -1)  # [B, W, H v], absorbed [B, W, E]
        if not self.absorbs_values:
            y = dot(y, weights.out[0], self.operands)
        if chunk.keep is not None:
            y = jnp.where(chunk.keep.reshape(*y.shape[:2], 1) > 0, y, 0.0)
        y = (y + jnp.broadcast_to(weights.out[1], y.shape)).astype(dtype)
        x = x + y if self.residual else y
        y = self._linear(layer_norm(x, *weights.mlp_norm), weights.hidden)
        x = x + self._linear(ACTIVATIONS[self.activation](y), weights.mlp_out)
        if weights.final is not None:
            x = self._linear(x, weights.final)
        return x.reshape(*chunk.content.shape[:-1], x.shape[-1])

    def _scores(self, x, chunk: Chunk, shared: _Shared) -> jax.Array:  # -> [B, H, W, N]
        keys, weights = shared.keys, shared.weights
        if self.path == "separable":
            return query_scores.separable(chunk, keys, self.operands)
        if self.path == "shared":
            return query_scores.shared(x, keys, self.operands)
        return query_scores.streaming(x, keys, weights.norm, weights.query, self.operands)

    def _linear(self, x, weights: Affine) -> jax.Array:
        y = dot(x, weights[0], self.operands)
        return y + jnp.broadcast_to(weights[1].astype(y.dtype), y.shape)
