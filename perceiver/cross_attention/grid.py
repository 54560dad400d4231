"""The core of `separable`: attention to a grid of rows and columns, a few rows at a time.

With t = g . content + rows + columns for an element at (row, column), its logit is inv t. The
softmax is an online one (Milakov and Gimelshein, 1805.02867): sums so far are rescaled when the
running maximum of a query moves. The backward pass has the same form. Let u be what t is with the
outputs' cotangents in place of g, rows and columns, and D the product of outputs and cotangents;
then the gradient of a logit is p (inv u - D), and its sums, taken exactly as those of p are in the
forward pass, are the gradients of g, rows and columns.

What made it fast on a CPU: queries are the minor axis, a step fits into the caches, and all that a
step sums goes through matrix products and unrolled additions. The barriers keep XLA from forming
scores or exponentials again for each of their uses (up to a quarter of the time, by version).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from perceiver.cross_attention.merge import NOTHING
from perceiver.cross_attention.online import normaliser, shift
from perceiver.nn.products import product

FEW_ROWS = 8  # of a step: summed one by one, as XLA's CPU backend sums slowly over an outer axis
_FEW_CHANNELS = 4  # pixels: their product costs less as a part of the elementwise work


class Steps(NamedTuple):
    """What is static: how many rows at a time, and how to multiply."""

    rows: int
    operands: str  # dtype of the operands of matrix products; their sums are float32


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(
    steps: Steps,
    content: jax.Array,
    g: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
    inv: jax.Array,
    mask: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Attends to all elements of a grid.

    Args:
      steps: the static choices.
      content: [B, R, W, F] floating.
      g: [B, Q, F] float32.
      rows: [B, Q, R] float32.
      columns: [B, Q, W] float32.
      inv: [B, R, W] float32.
      mask: [B, R, W] bool, True = real; or None.

    Returns:
      Sums of p inv content [B, Q, F], of p inv by row [B, Q, R] and by column [B, Q, W], and the
      log-sum-exp [B, Q], all float32. A query that sees no element gets zeros and NOTHING.
    """
    one = functools.partial(_attend_one, steps)
    return _for_each(one, content, g, rows, columns, inv, mask)


def _forward(steps: Steps, *inputs):
    outputs = attend(steps, *inputs)
    return outputs, (inputs, outputs)


def _backward(steps: Steps, saved, cotangents):
    one = functools.partial(_differentiate_one, steps)
    return *_for_each(one, *saved, cotangents), None  # none for the mask


attend.defvjp(_forward, _backward)


def _for_each(function: Callable, *arrays) -> Any:
    """Maps over examples. One alone keeps no batch axis: XLA fuses worse around an axis of 1."""
    if jax.tree.leaves(arrays)[0].shape[0] > 1:
        return jax.vmap(function)(*arrays)
    result = function(*jax.tree.map(lambda x: x[0], arrays))
    return jax.tree.map(lambda x: x[None], result)


# From here on, arrays are those of one example, and queries are the minor axis.


class _Queries(NamedTuple):
    """What multiplies an element's features."""

    g: jax.Array  # [F, Q]
    rows: jax.Array  # [R, Q]
    columns: jax.Array  # [W, Q]

    def times(self, f: jax.Array, start, steps: Steps) -> jax.Array:
        """[k, W, F], the content of the rows from `start` on -> [k, W, Q]"""
        rows = lax.dynamic_slice_in_dim(self.rows, start, f.shape[0])
        t = rows[:, None] + self.columns[None]
        if f.shape[-1] > _FEW_CHANNELS:
            return t + product("mf,fq->mq", _flat(f), self.g, steps.operands).reshape(t.shape)
        for channel in range(f.shape[-1]):
            t = t + f[..., channel, None] * self.g[None, None, channel]
        return t


class _Sums(NamedTuple):
    """Sums over the elements of a step: of p inv content, of p, of p inv by row and by column."""

    content: jax.Array  # [F, Q]
    total: jax.Array  # [Q]
    rows: jax.Array  # [k, Q]
    columns: jax.Array  # [W, Q]


def _attend_one(steps: Steps, content, g, rows, columns, inv, mask):
    queries = _Queries(g.T, rows.T, columns.T)

    def step(carry, start, size):
        top, total, z, by_column = carry
        f, v, real = _take((content, inv, mask), start, size)
        scores = _masked(queries.times(f, start, steps) * v[..., None], real)  # [k, W, Q]
        scores = lax.optimization_barrier(scores)
        new = jnp.maximum(top, _flat(scores).max(axis=0))
        p = lax.optimization_barrier(jnp.exp(scores - shift(new)[None, None]))
        kept = jnp.exp(top - shift(new))
        sums = _sums(p, f, v, steps)
        carry = (
            new,
            total * kept + sums.total,
            z * kept[None] + sums.content,
            by_column * kept[None] + sums.columns,
        )
        return carry, (sums.rows, jnp.broadcast_to(new[None], sums.rows.shape))

    top = jnp.full_like(g[:, 0], -jnp.inf)
    carry = top, jnp.zeros_like(top), jnp.zeros_like(queries.g), jnp.zeros_like(queries.columns)
    (top, total, z, by_column), (by_row, tops) = _scan(step, carry, content.shape[0], steps.rows)
    total, lse = normaliser(top, total, None if mask is None else mask.any())
    by_row = by_row * (jnp.exp(tops - shift(top)[None]) / total[None])
    return (z / total[None]).T, by_row.T, (by_column / total[None]).T, lse


def _differentiate_one(steps: Steps, inputs, outputs, cotangents):
    (content, g, rows, columns, inv, mask), (*sums, lse) = inputs, outputs
    *d_sums, d_lse = cotangents
    mean = sum((x * dx).sum(axis=-1) for x, dx in zip(sums, d_sums, strict=True)) - d_lse  # [Q]
    lse = jnp.where(lse == NOTHING, 0.0, lse)  # exp(scores - lse) is 0 where all is masked
    queries = _Queries(g.T, rows.T, columns.T)
    slopes = _Queries(*(dx.T for dx in d_sums))

    def step(carry, start, size):
        d_g, d_columns = carry
        f, v, real = _take((content, inv, mask), start, size)
        t, u = queries.times(f, start, steps), slopes.times(f, start, steps)  # [k, W, Q]
        p = jnp.exp(_masked(t * v[..., None], real) - lse[None, None])
        d_scores = p * (u * v[..., None] - mean[None, None])
        p, d_scores = lax.optimization_barrier((p, d_scores))
        d_queries = _sums(d_scores, f, v, steps)
        d_f = product("mq,fq->mf", _flat(d_scores), queries.g, steps.operands)
        d_f = d_f + product("mq,fq->mf", _flat(p), slopes.g, steps.operands)
        d_f = (d_f.reshape(f.shape) * v[..., None]).astype(content.dtype)
        d_v = (d_scores * t + p * u).sum(axis=-1)
        carry = d_g + d_queries.content, d_columns + d_queries.columns
        return carry, (d_f, d_queries.rows, d_v)

    # What nobody asks for, such as gradients of pixels, JAX and XLA remove from the loop.
    carry = jnp.zeros_like(queries.g), jnp.zeros_like(queries.columns)
    (d_g, d_columns), by_row = _scan(step, carry, content.shape[0], steps.rows)
    d_content, d_rows, d_inv = by_row
    return d_content, d_g.T, d_rows.T, d_columns.T, d_inv


def _sums(p: jax.Array, f: jax.Array, v: jax.Array, steps: Steps) -> _Sums:
    """[k, W, Q], [k, W, F], [k, W]"""
    features = jnp.concatenate([f * v[..., None], jnp.ones_like(v[..., None])], axis=-1)
    # Transposed in memory: a product takes longer if it sums over the first axis of both.
    features = lax.optimization_barrier(_flat(features).T)  # [F + 1, k W]
    both = product("fm,mq->fq", features, _flat(p), steps.operands)
    rows = jnp.einsum("kw,kwq->kq", v, p)
    if p.shape[0] > FEW_ROWS:
        columns = (p * v[..., None]).sum(axis=0)
    else:
        columns = sum(p[row] * v[row, :, None] for row in range(p.shape[0]))
    return _Sums(both[:-1], both[-1], rows, columns)


def _take(grids, start, size: int):
    """Takes some rows of arrays [R, W, ...], numbers in float32."""

    def take(x):
        x = lax.dynamic_slice_in_dim(x, start, size)
        return x if x.dtype == jnp.bool_ else x.astype(jnp.float32)

    return jax.tree.map(take, grids)


def _masked(scores: jax.Array, real: jax.Array | None) -> jax.Array:
    return scores if real is None else jnp.where(real[..., None], scores, -jnp.inf)


def _flat(x: jax.Array) -> jax.Array:  # [k, W, ...] -> [k W, ...]
    return x.reshape(-1, *x.shape[2:])


def _scan(step: Callable, carry: Any, rows: int, size: int) -> tuple[Any, Any]:
    """Runs `carry, by_row = step(carry, start, size)` over all rows, and joins what is by row.

    The rows left over are a step with a shape of its own, so nothing is ever padded.
    """
    count, rest = divmod(rows, size)

    def body(carry, i):
        return step(carry, i * size, size)

    carry, by_row = lax.scan(body, carry, jnp.arange(count))
    by_row = jax.tree.map(lambda x: x.reshape(count * size, *x.shape[2:]), by_row)
    if rest:
        carry, last = step(carry, count * size, rest)
        by_row = jax.tree.map(lambda *parts: jnp.concatenate(parts), by_row, last)
    return carry, by_row
