"""A loop over chunks of queries that keeps only its inputs for the backward pass.

Queries do not see each other, so whatever is computed for each of them may be computed for some of
them at a time. What differs from a scan under `jax.checkpoint` is what is stored: slices are taken
from and written to the arrays in place, on their own axis, and neither the slices nor a copy of
the arrays in another order of axes is kept.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Floats that one step may form. On a CPU they should stay in the cache of a core or two; an
# accelerator wants few, large steps.
_CPU_FLOATS = 2**20
_ACCELERATOR_FLOATS = 2**26


def automatic(batch: int, floats: int) -> int:
    """Returns how many queries to take at a time.

    Args:
      batch: examples, of each of which a step takes that many.
      floats: that a step forms for one query.
    """
    budget = _CPU_FLOATS if jax.default_backend() == "cpu" else _ACCELERATOR_FLOATS
    return max(64, budget // (batch * floats))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def map_chunks(step: Callable, size: int, shared: Any, arrays: Any) -> jax.Array:
    """Returns `step(shared, arrays)`, computed for `size` elements of axis 1 at a time.

    Args:
      step: a pure function of two trees of floating arrays; its result has as many elements along
        axis 1 as `arrays` have. It may close over no traced array.
      size: elements per step; the last step may be smaller.
      shared: arrays that all steps use; their gradients are summed in float32.
      arrays: arrays of as many elements along axis 1, one slice of which goes to each step.

    Returns:
      What a single step would. Inside `jax.shard_map` this needs `check_vma=False`.
    """
    total = jax.tree.leaves(arrays)[0].shape[1]

    def run(start, length, y):
        return _put(y, step(shared, _take(arrays, start, length)), start)

    like = jax.eval_shape(step, shared, _take(arrays, 0, 1))
    y = jnp.zeros((like.shape[0], total, *like.shape[2:]), like.dtype)
    return loop(run, total, size, y)


def _forward(step, size, shared, arrays):
    return map_chunks(step, size, shared, arrays), (shared, arrays)


def _backward(step, size, saved, cotangent):
    shared, arrays = saved

    def run(start, length, carry):
        sums, gradients = carry
        _, pull = jax.vjp(step, shared, _take(arrays, start, length))
        of_shared, of_arrays = pull(_take(cotangent, start, length))
        sums = jax.tree.map(lambda total, part: total + part.astype(total.dtype), sums, of_shared)
        return sums, _put(gradients, of_arrays, start)

    sums = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shared)
    sums, gradients = loop(
        run, cotangent.shape[1], size, (sums, jax.tree.map(jnp.zeros_like, arrays))
    )
    return jax.tree.map(lambda total, x: total.astype(x.dtype), sums, shared), gradients


map_chunks.defvjp(_forward, _backward)


def loop(run: Callable, total: int, size: int, carry: Any) -> Any:
    """Runs `carry = run(start, length, carry)` over chunks of `total` elements.

    Whole chunks are a compiled loop; what is left over is a step with a shape of its own.
    """
    size = min(size, total)
    count, rest = divmod(total, size)
    carry = jax.lax.fori_loop(0, count, lambda i, carry: run(i * size, size, carry), carry)
    return run(count * size, rest, carry) if rest else carry


def _take(tree, start, length):
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, length, axis=1), tree)


def _put(tree, parts, start):
    return jax.tree.map(
        lambda x, part: jax.lax.dynamic_update_slice_in_dim(x, part, start, axis=1), tree, parts
    )
