"""Cross-attention to a byte array, along the path that was planned for each segment."""

import functools

import jax
import jax.numpy as jnp

from perceiver import attention
from perceiver.attention import reference
from perceiver.cross_attention import separable, shared, statistics, streaming
from perceiver.cross_attention.absorb import Weights, absorb_keys, apply_values
from perceiver.cross_attention.merge import (
    PartialSoftmax,
    merge,
    whole_share,
    zeros_where_nothing,
)
from perceiver.cross_attention.plan import Plan
from perceiver.cross_attention.sequence import attend_split
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.layers import dot, layer_norm
from perceiver.nn.positions import PerExample


def attend(
    q: jax.Array,
    byte_array: ByteArray,
    weights: Weights,
    plan: Plan,
    *,
    compute: Compute = Compute(),
    query_mask: jax.Array | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    feature_key: jax.Array | None = None,
) -> jax.Array:
    """Attends to the normalised, projected elements of a byte array (Perceiver, appendix C).

    Args:
      q: [B, N, H, c] queries, not yet scaled.
      byte_array: M elements of C channels; masked ones get no weight.
      weights: of the norm, the keys and the values.
      plan: from `plan.choose` for these sizes.
      compute: how; its `kernel` serves the plain path, its `chunk` and `operands` all others.
      query_mask: [B, N] bool or None; queries with False give zeros.
      dropout_rate: on the attention weights; needs a plain plan.
      dropout_key: a random key where `dropout_rate` > 0.
      feature_key: what an approximate kernel draws its features with; None for a fixed key.

    Returns:
      [B, N, H, v] in q's dtype; zeros for a query that sees no element.
    """
    byte_array = byte_array.without_masked()
    if plan.is_plain:
        kernel = attention.kernel(
            compute.kernel, features=compute.features, feature_key=feature_key
        )
        drop = {"dropout_rate": dropout_rate, "dropout_key": dropout_key}
        masks = {"key_mask": byte_array.mask, "query_mask": query_mask}
        k, v = keys_and_values(byte_array, weights, q, compute.operands)
        return kernel(q, k, v, operands=compute.operands, **masks, **drop)
    byte_array, sequence = statistics.prepare(byte_array), byte_array.sequence
    # The keys' offset and bias, which no softmax sees: but a NaN in them must be seen.
    unseen = 0 * (weights.offset @ weights.key_w + weights.key_b)
    q = q + unseen.reshape(q.shape[2], -1).sum(axis=1)[None, None, :, None].astype(q.dtype)
    g = absorb_keys(q, weights)  # [B, N H, C]
    parts = []
    for segment, choice in zip(byte_array.segments, plan.choices, strict=True):
        path = functools.partial(_attend_segment, path=choice.path, compute=compute)
        if sequence is not None and sequence.splits(segment):
            parts.append(attend_split(path, sequence, segment, q, g, weights))
        else:
            parts.append(path(segment, q, g, weights))
    y, lse = merge(parts)
    y = zeros_where_nothing(y, lse)
    if query_mask is not None:
        y = jnp.where(query_mask[:, :, None, None], y, 0.0)
    return y.astype(q.dtype)


def attention_weights(q: jax.Array, byte_array: ByteArray, weights: Weights) -> jax.Array:
    """Returns all weights of such an attention, float32 [B, H, N, M]."""
    k, _ = keys_and_values(byte_array, weights, q)
    return reference.weights(q, k, key_mask=byte_array.mask)


def keys_and_values(
    byte_array: ByteArray, weights: Weights, q: jax.Array, operands: str = "float32"
) -> tuple[jax.Array, jax.Array]:  # [B, M, H, c], [B, M, H, v]
    """Forms keys and values of the concatenated byte array, in q's dtype and number of heads.

    This is the form that defines all others.
    """
    x = layer_norm(byte_array.dense().astype(q.dtype), weights.scale, weights.offset)  # [B, M, C]

    def project(w, b):
        y = dot(x, w, operands)
        y = y + jnp.broadcast_to(b.astype(y.dtype), y.shape)
        return y.reshape(*y.shape[:2], q.shape[2], -1)

    return project(weights.key_w, weights.key_b), project(weights.value_w, weights.value_b)


def _attend_segment(
    segment: Segment, q: jax.Array, g: jax.Array, weights: Weights, *, path: str, compute: Compute
) -> PartialSoftmax:
    how = {"chunk": compute.chunk, "operands": compute.operands}
    if path == "streaming":
        return streaming.attend(q, segment, weights, **how)
    grid = path == "separable" and len(segment.dims) > 1
    z, lse = (_grid if grid else _list)(g, segment, how)
    lse = lse.reshape(q.shape[:3])
    y = apply_values(z, whole_share(lse), weights)  # [B, N, H, v]
    return zeros_where_nothing(y, lse), lse


def _split(g: jax.Array, segment: Segment) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, Q, C] -> its parts for content [B, Q, F] and positions [B, Q, P], and the bias [B, Q]."""
    f = segment.content.shape[-1]
    p = segment.positions.channels if segment.positions is not None else 0
    content, positions, constant = jnp.split(g, [f, f + p], axis=-1)
    if segment.constant is None:
        return content, positions, jnp.zeros(g.shape[:2], g.dtype)
    return content, positions, jnp.einsum("bqp,p->bq", constant, segment.constant)


def _grid(g: jax.Array, segment: Segment, how) -> tuple[jax.Array, jax.Array]:  # z [B, Q, C], lse
    content, positions, bias = _split(g, segment)
    tables = segment.positions.tables
    axes = segment.positions.split(positions)
    biases = [jnp.einsum("bqp,np->bqn", part, t) for part, t in zip(axes, tables, strict=True)]
    biases[0] = biases[0] + bias[..., None]
    sums = separable.attend(
        segment.content, content, tuple(biases), segment.inverse_std, segment.mask, **how
    )
    features = [jnp.einsum("bqn,np->bqp", s, t) for s, t in zip(sums.axes, tables, strict=True)]
    parts = [sums.content, segment.positions.join(tuple(features))]
    return _with_constant(parts, sums.axes[0].sum(axis=-1), segment), sums.lse


def _list(g: jax.Array, segment: Segment, how) -> tuple[jax.Array, jax.Array]:
    g_content, g_table, bias = _split(g, segment)
    content, positions = segment.content, segment.positions
    content = content.reshape(content.shape[0], segment.size, -1)  # [B, M, F]
    table = None
    if isinstance(positions, PerExample):
        content = jnp.concatenate([content, positions.features], axis=-1)
        g_content, g_table = jnp.concatenate([g_content, g_table], axis=-1), None
    elif positions is None:
        g_table = None
    else:
        table = positions.dense()
    sums = shared.attend(
        content, table, g_content, g_table, bias, segment.inverse_std, segment.mask, **how
    )
    parts = [sums.content] if sums.table is None else [sums.content, sums.table]
    return _with_constant(parts, sums.total, segment), sums.lse


def _with_constant(parts: list[jax.Array], total: jax.Array, segment: Segment) -> jax.Array:
    if segment.constant is not None:
        parts = [*parts, jnp.einsum("bq,p->bqp", total, segment.constant)]
    return jnp.concatenate(parts, axis=-1)
