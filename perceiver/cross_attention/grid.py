"""The core of `separable`: attention to a grid of rows and columns, a few rows at a time.

With t = g . content + rows + columns for an element at (row, column), its logit is inv t. The
softmax is an online one (Milakov and Gimelshein, 1805.02867): sums so far are rescaled when the
running maximum of a query moves. The backward pass has the same form. Let u be what t is with the
outputs' cotangents in place of g, rows and columns, and D the product of outputs and cotangents;
then the gradient of a logit is p (inv u - D), and its sums, taken exactly as those of p are in the
forward pass, are the gradients of g, rows and columns.

What made it fast on a CPU: queries are the minor axis, a step fits into the caches, everything
that a step sums goes through matrix products and unrolled additions, and barriers keep XLA from
computing exponentials again in each place that uses them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from perceiver.cross_attention.merge import NOTHING
from perceiver.products import product

FEW_ROWS = 8  # of a step: summed one by one, as XLA's CPU backend sums slowly over an outer axis
_FEW_CHANNELS = 4  # pixels: their product costs less as a part of the elementwise work
_LOWEST = -1e20  # where a running maximum starts: below all logits, above those of masked elements


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
    queries = _Queries.of(g, rows, columns)

    def step(carry, start, size):
        top, total, z, by_column = carry
        f, v, real = _take((content, inv, mask), start, size)
        scores = lax.optimization_barrier(
            _masked(queries.times(f, start, steps) * v[..., None], real)
        )
        new = jnp.maximum(top, _flat(scores).max(axis=1))
        p = lax.optimization_barrier(jnp.exp(scores - new[:, None, None]))  # [B, k, W, Q]
        kept = jnp.exp(top - new)
        sums = _sums(p, f, v, steps)
        carry = (
            new,
            total * kept + sums.total,
            z * kept[:, None] + sums.content,
            by_column * kept[:, None] + sums.columns,
        )
        return carry, (sums.rows, jnp.broadcast_to(new[None], sums.rows.shape))

    top = jnp.full_like(g[..., 0], _LOWEST)
    carry = top, jnp.zeros_like(top), jnp.zeros_like(queries.g), jnp.zeros_like(queries.columns)
    (top, total, z, by_column), (by_row, tops) = _scan(step, carry, content.shape[1], steps.rows)
    sees = total > 0
    total = jnp.where(sees, total, 1.0)
    lse = jnp.where(sees, top + jnp.log(total), NOTHING)
    by_row = by_row * (jnp.exp(tops - top[None]) / total[None])  # [R, B, Q]
    z, by_column = z / total[:, None], by_column / total[:, None]
    return z.swapaxes(1, 2), by_row.transpose(1, 2, 0), by_column.swapaxes(1, 2), lse


def _forward(steps: Steps, *inputs):
    outputs = attend(steps, *inputs)
    return outputs, (inputs, outputs)


def _backward(steps: Steps, saved, cotangents):
    (content, g, rows, columns, inv, mask), (*sums, lse) = saved
    *d_sums, d_lse = cotangents
    mean = sum((x * dx).sum(axis=-1) for x, dx in zip(sums, d_sums, strict=True)) - d_lse  # [B, Q]
    lse = jnp.where(lse > NOTHING / 2, lse, -NOTHING)  # exp(scores - lse) is 0 where all is masked
    queries, slopes = _Queries.of(g, rows, columns), _Queries.of(*d_sums)

    def step(carry, start, size):
        d_content, d_inv, d_g, d_columns = carry
        f, v, real = _take((content, inv, mask), start, size)
        t, u = queries.times(f, start, steps), slopes.times(f, start, steps)  # [B, k, W, Q]
        p = jnp.exp(_masked(t * v[..., None], real) - lse[:, None, None])
        d_scores = p * (u * v[..., None] - mean[:, None, None])
        p, d_scores = lax.optimization_barrier((p, d_scores))
        of_queries = _sums(d_scores, f, v, steps)
        of_f = product("bmq,bfq->bmf", _flat(d_scores), queries.g, steps.operands)
        of_f = of_f + product("bmq,bfq->bmf", _flat(p), slopes.g, steps.operands)
        of_f = (of_f.reshape(f.shape) * v[..., None]).astype(content.dtype)
        of_v = (d_scores * t + p * u).sum(axis=-1)
        put = functools.partial(lax.dynamic_update_slice_in_dim, start_index=start, axis=1)
        carry = (
            put(d_content, of_f),
            put(d_inv, of_v),
            d_g + of_queries.content,
            d_columns + of_queries.columns,
        )
        return carry, of_queries.rows

    # What nobody asks for, such as gradients of pixels, JAX and XLA remove from the loop.
    carry = jax.tree.map(jnp.zeros_like, (content, inv, queries.g, queries.columns))
    carry, d_rows = _scan(step, carry, content.shape[1], steps.rows)
    d_content, d_inv, d_g, d_columns = carry
    d_queries = d_g.swapaxes(1, 2), d_rows.transpose(1, 2, 0), d_columns.swapaxes(1, 2)
    return d_content, *d_queries, d_inv, None


attend.defvjp(_forward, _backward)


class _Queries(NamedTuple):
    """What multiplies an element's features, queries last."""

    g: jax.Array  # [B, F, Q]
    rows: jax.Array  # [R, B, Q]
    columns: jax.Array  # [B, W, Q]

    @classmethod
    def of(cls, g: jax.Array, rows: jax.Array, columns: jax.Array) -> "_Queries":
        """[B, Q, F], [B, Q, R], [B, Q, W]"""
        return cls(g.swapaxes(1, 2), rows.transpose(2, 0, 1), columns.swapaxes(1, 2))

    def times(self, f: jax.Array, start, steps: Steps) -> jax.Array:
        """[B, k, W, F], the content of the rows from `start` on -> [B, k, W, Q]"""
        rows = lax.dynamic_slice_in_dim(self.rows, start, f.shape[1], axis=0)  # [k, B, Q]
        t = rows.swapaxes(0, 1)[:, :, None] + self.columns[:, None]
        if f.shape[-1] > _FEW_CHANNELS:
            return t + product("bmf,bfq->bmq", _flat(f), self.g, steps.operands).reshape(t.shape)
        for channel in range(f.shape[-1]):
            t = t + f[..., channel, None] * self.g[:, None, None, channel]
        return t


class _Sums(NamedTuple):
    """Sums over the elements of a step, of p inv content, of p, and of p inv by row and column."""

    content: jax.Array  # [B, F, Q]
    total: jax.Array  # [B, Q]
    rows: jax.Array  # [k, B, Q]
    columns: jax.Array  # [B, W, Q]


def _sums(p: jax.Array, f: jax.Array, v: jax.Array, steps: Steps) -> _Sums:
    """[B, k, W, Q], [B, k, W, F], [B, k, W]"""
    features = _flat(jnp.concatenate([f * v[..., None], jnp.ones_like(v[..., None])], axis=-1))
    # Transposed in memory: the product takes longer if it has to sum over the first axis of both.
    features = lax.optimization_barrier(features.swapaxes(1, 2))  # [B, F + 1, k W]
    both = product("bfm,bmq->bfq", features, _flat(p), steps.operands)
    rows = jnp.einsum("bkw,bkwq->bkq", v, p).swapaxes(0, 1)
    size = p.shape[1]
    if size > FEW_ROWS:
        columns = (p * v[..., None]).sum(axis=1)
    else:
        columns = sum(p[:, row] * v[:, row, :, None] for row in range(size))
    return _Sums(both[:, :-1], both[:, -1], rows, columns)


def _take(grids, start, size: int):
    """Takes some rows of arrays [B, R, W, ...], numbers in float32."""

    def take(x):
        x = lax.dynamic_slice_in_dim(x, start, size, axis=1)
        return x if x.dtype == jnp.bool_ else x.astype(jnp.float32)

    return jax.tree.map(take, grids)


def _masked(scores: jax.Array, real: jax.Array | None) -> jax.Array:
    return scores if real is None else jnp.where(real[..., None], scores, NOTHING)


def _flat(x: jax.Array) -> jax.Array:  # [B, k, W, ...] -> [B, k W, ...]
    return x.reshape(x.shape[0], -1, *x.shape[3:])


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
