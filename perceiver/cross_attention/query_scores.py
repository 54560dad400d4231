"""Three ways to score N latents for a query x, all the same function but for what they form.

  formed     (LN(x) Wq + bq) . k_n                                any number of heads
  absorbed   standardised(x) . h_n + c_n                          one head
  separable  inv (content . h_n[content] + A[n, i] + B[n, j]) + c_n   one head, x_ij on a grid

with h_n = scale * (Wq k_n) and c_n = (offset Wq + bq) . k_n. Where h_n takes the place of Wq,
queries are not projected. Where they are the elements of a grid with Fourier positions, those
positions are not even looked at: A and B are tables, of rows i and columns j, and h_n, centred over
the channels, needs no mean of x. The key bias adds the same to all n and is left out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from perceiver.byte_array import Segment
from perceiver.cross_attention.query_layout import Chunk
from perceiver.layers import EPSILON, layer_norm
from perceiver.products import product


class Keys(NamedTuple):
    """What the queries are scored with; the softmax's 1 / sqrt(c) is inside."""

    content: jax.Array  # formed [B, H, c, N], absorbed [B, E, N], separable [B, F, N]
    bias: jax.Array | None = None  # [B, N] c_n
    rows: jax.Array | None = None  # [B, P', N] of the features of a row
    columns: jax.Array | None = None  # [B, X, N] the table B


def prepare(path: str, k: jax.Array, norm, query, segment: Segment) -> Keys:
    """Returns the keys of a path.

    Args:
      path: "streaming", "shared", or "separable" for a grid.
      k: [B, H, c, N], without the key bias.
      norm: scale and offset, [E], of the queries' norm.
      query: w [E, H c] and b [H c] of the queries' projection.
      segment: the queries.
    """
    k = k * k.shape[2] ** -0.5
    if path == "streaming":
        return Keys(k)
    k = k[:, 0].astype(jnp.float32)  # [B, c, N]
    (scale, offset), (w, b) = norm, query
    bias = jnp.einsum("bcn,c->bn", k, offset @ w + b)
    h = jnp.einsum("bcn,ec->ben", k, w) * scale[None, :, None]
    if path == "shared":
        return Keys(h, bias)
    h = h - h.mean(axis=1, keepdims=True)
    features, positions = segment.content.shape[-1], segment.positions
    content, h, constant = jnp.split(h, [features, features + positions.channels], axis=1)
    *rows, last = (part.swapaxes(1, 2) for part in positions.split(h.swapaxes(1, 2)))
    columns = jnp.einsum("xp,bpn->bxn", positions.tables[-1], last)
    if segment.constant is not None:
        columns = columns + jnp.einsum("bpn,p->bn", constant, segment.constant)[:, None]
    return Keys(content, bias, jnp.concatenate(rows, axis=1), columns)


def formed(x, keys: Keys, norm, query, operands) -> jax.Array:  # [B, W, E] -> [B, H, W, N]
    """Projects the queries: for many heads, or few latents."""
    w, b = query
    q = product("bwe,ec->bwc", layer_norm(x, *norm), w, operands)
    q = q + jnp.broadcast_to(b, q.shape)
    q = q.reshape(*q.shape[:2], keys.content.shape[1], -1)
    return product("bwhc,bhcn->bhwn", q, keys.content, operands)


def absorbed(x, keys: Keys, operands) -> jax.Array:  # [B, W, E] -> [B, 1, W, N]
    """Scores the normalised queries themselves."""
    x = jax.nn.standardize(x.astype(jnp.float32), axis=-1, epsilon=EPSILON)
    return (product("bwe,ben->bwn", x, keys.content, operands) + keys.bias[:, None])[:, None]


def separable(chunk: Chunk, keys: Keys, operands) -> jax.Array:  # [B, R, X, F] -> [B, 1, R X, N]
    """Scores rows and columns of a grid apart."""
    inverse = chunk.inverse_std[..., None]  # [B, R, X, 1]
    x = chunk.content.astype(jnp.float32) * inverse
    of_rows = jnp.einsum("rp,bpn->brn", chunk.positions[0], keys.rows)
    tables = of_rows[:, :, None] + keys.columns[:, None]  # [B, R, X, N], never by itself
    scores = product("brxf,bfn->brxn", x, keys.content, operands) + inverse * tables
    scores = scores + keys.bias[:, None, None]
    return scores.reshape(scores.shape[0], 1, -1, scores.shape[-1])
