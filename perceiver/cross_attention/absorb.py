"""Absorbed projections: attend to normalised inputs without forming their keys and values.

With LN(x) = (x - mean) inv * scale + offset, a query q and the key weights Wk,

    q . (LN(x) Wk + bk) = inv * (g . x) + terms that no key changes,   g = centred(scale * (Wk q))

and what the softmax does not see drops out: the key bias, the norm's offset, and, because g is
centred over the channels, the mean of x. On the value side

    sum_m p_m (LN(x_m) Wv + bv) = (scale * centred(z) + offset) Wv + bv,   z = sum_m p_m inv_m x_m

so the only arrays that have as many rows as there are inputs are the inputs and one number for
each, `inv`. A head costs C multiplications per query and input instead of its own width: it pays
with one wide head, not with many narrow ones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Weights(NamedTuple):
    """What a cross-attend applies to its inputs: norm, keys, values of H heads."""

    scale: jax.Array  # [C]
    offset: jax.Array  # [C]
    key_w: jax.Array  # [C, H c]
    key_b: jax.Array  # [H c]
    value_w: jax.Array  # [C, H v]
    value_b: jax.Array  # [H v]


def absorb_keys(q: jax.Array, weights: Weights) -> jax.Array:  # [B, N, H, c] -> [B, N H, C]
    """Returns g, float32, with the softmax's 1 / sqrt(c) inside."""
    batch, n, heads, width = q.shape
    w = weights.key_w.reshape(-1, heads, width)  # [C, H, c]
    g = jnp.einsum("bnhc,dhc->bnhd", q, w.astype(q.dtype), preferred_element_type=jnp.float32)
    g = g * (weights.scale[None, None, None] * width**-0.5)
    g = g - g.mean(axis=-1, keepdims=True)
    return g.reshape(batch, n * heads, -1)


def apply_values(z: jax.Array, share: jax.Array, weights: Weights) -> jax.Array:
    """[B, N H, C], [B, N, H, 1] -> [B, N, H, v]: what attention to the values would have given.

    Args:
      z: the weighted sums of elements.
      share: the sum of the weights, see `merge.whole_share`.
      weights: of the values; all in float32.
    """
    batch, n, heads, _ = share.shape
    z = (z - z.mean(axis=-1, keepdims=True)) * weights.scale[None, None]
    z = z.reshape(batch, n, heads, -1) + share * weights.offset[None, None, None]
    w = weights.value_w.reshape(z.shape[-1], heads, -1)
    y = jnp.einsum("bnhd,dhv->bnhv", z, w, preferred_element_type=jnp.float32)
    return y + share * weights.value_b.reshape(heads, -1)[None, None]
