"""Attention to many elements, some at a time, with an online softmax and its own gradient.

A softmax over M elements needs of those it has seen only the largest logit, the sum of the
exponentials and the weighted sum of the values, each relative to that largest logit
(Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018). So keys and values of
`Chunks.length` elements are formed, used and forgotten. The backward pass forms them again: of the
forward pass it keeps inputs, outputs and the log-sum-exp, nothing that is as long as both the
queries and the elements (Rabe and Staats, "Self-attention does not need O(n^2) memory", 2021).

Queries lie along the last axis of every array of scores, sums and results: on a CPU, reductions
over elements then run along contiguous rows, and matrix products need no transposed copies.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from perceiver.cross_attention.chunks import loop
from perceiver.cross_attention.merge import NOTHING
from perceiver.nn.products import product

# How many scores a step should form. On a CPU, 1 to 8 MiB of them took the same time to a tenth, so
# little memory is as good as more; an accelerator wants few, large steps (256 MiB of scores).
_CPU_SCORES = 2**19
_ACCELERATOR_SCORES = 2**26


class Rows(NamedTuple):
    """Trees of arrays with one row for each of M elements."""

    own: Any = ()  # leaves [B, M, ...], of each example
    common: Any = ()  # leaves [M, ...], that the batch shares

    def take(self, start, length: int) -> "Rows":
        def take(axis, tree):
            return jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, start, length, axis), tree
            )

        return Rows(take(1, self.own), take(0, self.common))

    def put(self, part: "Rows", start) -> "Rows":
        def put(axis, tree, part):
            return jax.tree.map(
                lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, start, axis), tree, part
            )

        return Rows(put(1, self.own, part.own), put(0, self.common, part.common))


# Maps some rows (float32 or narrower), the whole arrays and the index of the first row to
# k [B, H, W, c] and v [B, H, W, V], float32. Pure; it closes over no traced array.
Form = Callable[[Rows, Any, Any], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Chunks:
    """What is static: how keys and values are formed, and of how many elements at a time."""

    form: Form
    size: int  # M
    channels: int  # V, of a value
    length: int  # elements per step; the last may have fewer
    operands: str  # dtype of the operands of matrix products; their sums are float32


def chunk_size(size: int, queries: int) -> int:
    """Returns how many of `size` elements to take at a time.

    Args:
      size: M.
      queries: scores that each element takes part in: those of all examples and heads.
    """
    scores = _CPU_SCORES if jax.default_backend() == "cpu" else _ACCELERATOR_SCORES
    steps = -(-size // max(64, scores // queries))
    # With a few steps more, all may be of equal length: then nothing is compiled for a shorter one.
    steps = next((n for n in range(steps, steps + steps // 4 + 1) if size % n == 0), steps)
    return -(-size // steps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(
    chunks: Chunks, q: jax.Array, rows: Rows, whole: Any, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Attends to all M elements. Inside `jax.shard_map` this needs `check_vma=False`.

    Args:
      chunks: the static choices.
      q: [B, H, c, N] float32, scaled: logits are q . k.
      rows: what keys and values are formed from, chunk by chunk.
      whole: floating arrays that all chunks use; their gradients are summed over the chunks.
      mask: [B, M] bool or None; elements with False get no weight.

    Returns:
      y [B, H, V, N] and the log-sum-exp of the logits [B, H, N], both float32. A query that sees
      no element gets zeros and NOTHING.
    """
    return _forward(chunks, q, rows, whole, mask)[0]


def _forward(chunks: Chunks, q, rows: Rows, whole, mask):
    def step(start, length, carry):
        top, total, y = carry  # [B, H, N], [B, H, N], [B, H, V, N]
        k, v = chunks.form(rows.take(start, length), whole, start)
        scores = _scores(chunks, q, k, mask, start)  # [B, H, W, N]
        # Without barriers XLA's CPU backend computes scores and exponentials in each use.
        scores = jax.lax.optimization_barrier(scores)
        new = jnp.maximum(top, scores.max(axis=2))
        e = jax.lax.optimization_barrier(jnp.exp(scores - shift(new)[:, :, None]))
        kept = jnp.exp(top - shift(new))
        y = y * kept[:, :, None] + product("bhwv,bhwn->bhvn", v, e, chunks.operands)
        return new, total * kept + e.sum(axis=2), y

    batch, heads, _, n = q.shape
    top = jnp.full((batch, heads, n), -jnp.inf, jnp.float32)
    y = jnp.zeros((batch, heads, chunks.channels, n), jnp.float32)
    top, total, y = loop(step, chunks.size, chunks.length, (top, jnp.zeros_like(top), y))
    total, lse = normaliser(top, total, None if mask is None else mask.any(axis=1)[:, None, None])
    y = y / total[:, :, None]
    return (y, lse), (q, rows, whole, mask, y, lse)


def _backward(chunks: Chunks, saved, cotangents):
    q, rows, whole, mask, y, lse = saved
    dy, d_lse = cotangents
    mean = (y * dy).sum(axis=2) - d_lse  # [B, H, N], what the softmax's own derivative subtracts
    lse = jnp.where(lse == NOTHING, 0.0, lse)  # exp(scores - lse) is 0 where all is masked

    def step(start, length, carry):
        dq, d_rows, d_whole = carry
        (k, v), pull = jax.vjp(
            lambda rows, whole: chunks.form(rows, whole, start), rows.take(start, length), whole
        )
        p = jax.lax.optimization_barrier(
            jnp.exp(_scores(chunks, q, k, mask, start) - lse[:, :, None])
        )
        slope = product("bhwv,bhvn->bhwn", v, dy, chunks.operands)
        d_scores = jax.lax.optimization_barrier(p * (slope - mean[:, :, None]))  # [B, H, W, N]
        dq = dq + product("bhwc,bhwn->bhcn", k, d_scores, chunks.operands)
        part, of_whole = pull(
            (
                product("bhwn,bhcn->bhwc", d_scores, q, chunks.operands),
                product("bhwn,bhvn->bhwv", p, dy, chunks.operands),
            )
        )
        return dq, d_rows.put(part, start), jax.tree.map(jnp.add, d_whole, of_whole)

    # What nobody asks for, such as gradients of fixed rows, XLA and JAX remove from the loop.
    zeros = jax.tree.map(jnp.zeros_like, (q, rows, whole))
    return *loop(step, chunks.size, chunks.length, zeros), None


attend.defvjp(_forward, _backward)


def _scores(chunks: Chunks, q, k, mask, start) -> jax.Array:  # [B, H, W, N]
    scores = product("bhwc,bhcn->bhwn", k, q, chunks.operands)
    if mask is None:
        return scores
    real = jax.lax.dynamic_slice_in_dim(mask, start, k.shape[2], axis=1)
    return jnp.where(real[:, None, :, None], scores, -jnp.inf)


def shift(top: jax.Array) -> jax.Array:
    """Returns what to subtract from logits whose maximum so far is `top`, -inf before any."""
    return jnp.where(top == -jnp.inf, 0.0, top)


def normaliser(
    top: jax.Array, total: jax.Array, sees: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Returns the sum of the exponentials to divide by, and the log-sum-exp.

    Whether a query sees an element the mask says, not the sum: that is NaN where the query met NaN
    or infinity, and must stay so.

    Args:
      top: the largest logit.
      total: the sum of exp(logit - top).
      sees: bool, broadcast to these; None: all see something.
    """
    lse = shift(top) + jnp.log(total)
    if sees is None:
        return total, lse
    return jnp.where(sees, total, 1.0), jnp.where(sees, lse, NOTHING)
