"""Three ways to score N latents for a query x: one function, computed from different parts.

  streaming  (LN(x) Wq + bq) . k_n                                    any number of heads
  shared     standardised(x) . h_n + c_n                              one head
  separable  inv (content . h_n[content] + A[i, n] + B[j, n]) + c_n   one head, x_ij on a grid

with h_n = scale * (Wq k_n) and c_n = (offset Wq + bq) . k_n. Where h_n takes the place of Wq,
queries are not projected. Where they are the elements of a grid with Fourier positions, those
positions are not even looked at: A and B are tables, of rows i and columns j, and h_n, centred over
the channels, needs no mean of x. (Row i stands for all axes but the last, so A is smaller than all
scores by the length of a row.) The key bias adds the same to all n and is left out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from perceiver.cross_attention.queries.query_layout import Chunk, row_features
from perceiver.nn.byte_array import Segment
from perceiver.nn.layers import EPSILON, layer_norm
from perceiver.nn.products import product


class Keys(NamedTuple):
    """What queries are scored with; the softmax's 1 / sqrt(c) is inside, latents come last."""

    content: jax.Array  # streaming [B, H, c, N], shared [B, E, N], separable [B, F, N]
    bias: jax.Array | None = None  # [B, N] c_n
    rows: jax.Array | None = None  # [B, R, N] the table A
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
    k, (scale, offset), (w, b) = k[:, 0], norm, query
    bias = jnp.einsum("bcn,c->bn", k, offset @ w + b)
    h = jnp.einsum("bcn,ec->ben", k, w) * scale[None, :, None]
    if path == "shared":
        return Keys(h, bias)
    h = h - h.mean(axis=1, keepdims=True)
    features, positions = segment.content.shape[-1], segment.positions
    content, h, constant = jnp.split(h, [features, features + positions.channels], axis=1)
    *rows, last = (part.swapaxes(1, 2) for part in positions.split(h.swapaxes(1, 2)))
    rows = jnp.einsum("rp,bpn->brn", row_features(positions), jnp.concatenate(rows, axis=1))
    columns = jnp.einsum("xp,bpn->bxn", positions.tables[-1], last)
    if segment.constant is not None:
        columns = columns + jnp.einsum("bpn,p->bn", constant, segment.constant)[:, None]
    return Keys(content, bias, rows, columns)


def streaming(x, keys: Keys, norm, query, operands: str):  # [B, W, E] -> [B, H, W, N]
    """Scores normalised, projected queries."""
    w, b = query
    q = product("bwe,ec->bwc", layer_norm(x, *norm), w, operands)
    q = q + jnp.broadcast_to(b, q.shape)
    q = q.reshape(*q.shape[:2], keys.content.shape[1], -1)
    return product("bwhc,bhcn->bhwn", q, keys.content, operands)


def shared(x, keys: Keys, operands: str):  # [B, W, E] -> [B, 1, W, N]
    """Scores the normalised queries themselves."""
    x = jax.nn.standardize(x.astype(jnp.float32), axis=-1, epsilon=EPSILON)
    return (product("bwe,ben->bwn", x, keys.content, operands) + keys.bias[:, None])[:, None]


def separable(chunk: Chunk, keys: Keys, operands: str):  # [B, R, X, F] -> [B, 1, R X, N]
    """Scores content, rows and columns apart."""
    x = chunk.content.astype(jnp.float32) * chunk.inverse_std[..., None]
    scores = product("bwf,bfn->bwn", jax.lax.collapse(x, 1, 3), keys.content, operands)
    tables = _tables(chunk.inverse_std, chunk.row_scores, keys.columns, keys.bias)
    return (scores + tables.reshape(scores.shape))[:, None]


@jax.custom_vjp
def _tables(inverse, rows, columns, bias):  # -> [B, R, X, N], which is only ever added
    return inverse[..., None] * (rows[:, :, None] + columns[:, None]) + bias[:, None, None]


def _tables_forward(inverse, rows, columns, bias):
    return _tables(inverse, rows, columns, bias), (inverse, rows, columns)


def _tables_backward(saved, d):  # [B, R, X, N]
    # As matrix products: with the sums of products that differentiation would give, XLA's CPU
    # backend takes 1.2 times as long for the gradient of a chunk, and 1.6 times for R > 1.
    inverse, rows, columns = saved
    d_inverse = jnp.einsum("brxn,brxn->brx", d, rows[:, :, None] + columns[:, None])
    pair = jnp.stack([inverse, jnp.ones_like(inverse)], axis=-1)  # factors of rows, of the bias
    of_pair = jnp.einsum("brxt,brxn->brtn", pair, d)
    d_columns = jnp.einsum("brx,brxn->bxn", inverse, d)
    return d_inverse, of_pair[:, :, 0], d_columns, of_pair[:, :, 1].sum(axis=1)


_tables.defvjp(_tables_forward, _tables_backward)
