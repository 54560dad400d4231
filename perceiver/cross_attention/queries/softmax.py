"""softmax(scores) v, where the scores of a chunk of queries to all keys fit at once.

The derivative is written by hand. It keeps the exponentials, so that the backward pass of a chunk
computes them once, and takes the softmax's own reduction from the outputs, which are narrower:
sum_n p_n dp_n = y . dy.
"""

import functools

import jax
import jax.numpy as jnp

from perceiver.nn.products import product


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def attend(scores: jax.Array, v: jax.Array, operands) -> jax.Array:
    """Weighs the values of all keys.

    Args:
      scores: [B, H, W, N] float32, of W queries.
      v: [B, H, V, N]: with keys last, all products and those of the gradient are fast on a CPU.
      operands: dtype of the operands of the matrix products.

    Returns:
      [B, H, W, V] float32.
    """
    return _forward(scores, v, operands)[0]


def _forward(scores, v, operands):
    exps = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    share = 1 / exps.sum(axis=-1, keepdims=True)  # [B, H, W, 1]
    # the values first, then the share of each: V is narrower than N
    y = product("bhwn,bhvn->bhwv", exps, v, operands) * share
    return y, (exps, share, v, y)


def _backward(operands, saved, d_y):
    exps, share, v, y = saved
    d_y = d_y * share
    d_v = product("bhwv,bhwn->bhvn", d_y, exps, operands).astype(v.dtype)
    slope = product("bhwv,bhvn->bhwn", d_y, v, operands)
    return exps * (slope - (y * d_y).sum(axis=-1, keepdims=True)), d_v


attend.defvjp(_forward, _backward)
