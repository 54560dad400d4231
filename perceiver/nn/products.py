"""Matrix products whose operands may be rounded to bfloat16, in both directions of a gradient."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

_forward_mode = contextvars.ContextVar("forward_mode", default=False)


@contextlib.contextmanager
def forward_mode() -> Iterator[None]:
    """Lets what is traced within be differentiated forward too: `jax.jvp`, `jax.linearize`.

    Elsewhere products have a reverse derivative of their own, which is faster and has no forward
    one. A model also needs the plain paths and the reference kernel, which have none either:
    `kernel="reference", cross_path="plain", decode_path="plain"`. A function that was compiled
    outside keeps its program: make it (`jax.jit`) within.
    """
    token = _forward_mode.set(True)
    try:
        yield
    finally:
        _forward_mode.reset(token)


def differentiates_forward() -> bool:
    """Whether `forward_mode` is on."""
    return _forward_mode.get()


def product(equation: str, a: jax.Array, b: jax.Array, operands, result=jnp.float32) -> jax.Array:
    """Returns einsum(equation, a, b) of operands cast to a dtype, summed in float32.

    The gradient's two products cast the cotangent as well: otherwise those of rounded operands
    would be products of float32 with bfloat16, which no hardware has. On a CPU they first
    transpose, in memory, an operand whose summed axes do not come last: XLA's own transposed form
    takes 1.3 times as long in float32 and 2.3 times in bfloat16 (weight gradients of 1024 x 512 x
    1024, two cores with AVX-512).

    Args:
      equation: of two operands; every letter of one is in the other or in the result.
      a: the first operand.
      b: the second operand.
      operands: the dtype that both are cast to.
      result: the dtype of what is returned.
    """
    multiply = _multiply if differentiates_forward() else _product
    return multiply(equation, jnp.dtype(operands), jnp.dtype(result), a, b)


def operand_dtype(x: jax.Array, operands: str) -> jnp.dtype:
    """Returns what operands of products with x are cast to: float32 may be rounded, nothing else.

    Args:
      x: activations.
      operands: "float32" or "bfloat16".
    """
    return jnp.dtype(operands) if x.dtype == jnp.float32 else x.dtype


def in_order(x: jax.Array) -> jax.Array:
    """Returns the same array; on a CPU, it lies in memory in the order of its axes.

    XLA may otherwise fold a transposition into the product that reads it, which then is slower by
    more than the transposition takes.
    """
    if not _lays_out():
        return x
    return with_layout_constraint(jnp.asarray(x), Layout(tuple(range(x.ndim))))


def _lays_out() -> bool:
    """Whether layouts are asked for: on a CPU, but where XLA does not split arrays over devices.

    XLA's partitioner does not see through a layout constraint: it gathers the whole array, batch
    and all, on every device. That it will be at work is known where a mesh was set while tracing
    (`jax.sharding.use_abstract_mesh`); within `jax.shard_map` each device has its own arrays.
    """
    mesh = jax.sharding.get_abstract_mesh()
    split = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    by_xla = any(size > 1 and kind != jax.sharding.AxisType.Manual for size, kind in split)
    return jax.default_backend() == "cpu" and not by_xla


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _product(equation, dtype, result, a, b):
    return _multiply(equation, dtype, result, a, b)


def _multiply(equation, dtype, result, a, b):
    return jnp.einsum(equation, a.astype(dtype), b.astype(dtype), preferred_element_type=result)


def _forward(equation, dtype, result, a, b):
    # not by `_product`, which would hide the product from policies of `jax.checkpoint`
    return _multiply(equation, dtype, result, a, b), (a, b)


def _backward(equation, dtype, result, saved, cotangent):
    del result  # the cotangent's dtype
    a, b = saved
    left, right, out = equation.replace("->", ",").split(",")
    d_a = _summed_last(f"{out},{right}->{left}", dtype, a.dtype, cotangent, b)
    d_b = _summed_last(f"{left},{out}->{right}", dtype, b.dtype, a, cotangent)
    return d_a, d_b


def _summed_last(equation, dtype, result, a, b):
    left, right, out = equation.replace("->", ",").split(",")
    order = "".join(sorted(left, key=lambda letter: letter not in out))  # stable
    if order != left and _lays_out():
        a = jnp.transpose(a.astype(dtype), [left.index(letter) for letter in order])
        a, left = in_order(a), order
    return _product(f"{left},{right}->{out}", dtype, result, a, b)


_product.defvjp(_forward, _backward)
