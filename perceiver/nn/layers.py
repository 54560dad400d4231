"""The three smallest parts, each keeping its parameters in float32 and computing in its input's
dtype.

So the compute dtype of a model is one choice: the dtype of the arrays that enter it. Norms compute
in float32.
"""

import dataclasses
import functools
import string

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.nn.products import operand_dtype, product

# Weights inside attention and MLPs: variance 1/fan_in after truncation. Elsewhere Haiku's own
# default is used, a normal of standard deviation 1/sqrt(fan_in) cut at two, so slightly narrower
# (as in the released models).
FAN_IN = hk.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")

EPSILON = 1e-5  # of a layer norm, added to the variance: that of the released models

# Between the two layers of an MLP. The released weights were trained with the tanh form; PyTorch's
# usual one is exact (erf). Taking the one for the other moves a released model's outputs by 1e-4.
ACTIVATIONS = {
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_erf": functools.partial(jax.nn.gelu, approximate=False),
}


@dataclasses.dataclass(kw_only=True, eq=False)
class Linear(hk.Module):
    """x w + b over the last axis."""

    channels: int
    w_init: hk.initializers.Initializer | None = None  # None: truncated normal, 1/sqrt(fan_in)
    operands: str = "float32"  # of the product, see `dot`
    name: str | None = None

    def __call__(self, x: jax.Array) -> jax.Array:  # [..., C] -> [..., channels]
        w, b = self.parameters(x.shape[-1])
        y = dot(x, w, self.operands)
        return y + jnp.broadcast_to(b.astype(x.dtype), y.shape)

    def parameters(self, fan_in: int) -> tuple[jax.Array, jax.Array]:
        """Returns w [fan_in, channels] and b [channels], for who applies them in another way."""
        w_init = self.w_init or hk.initializers.TruncatedNormal(fan_in**-0.5)
        w = hk.get_parameter("w", [fan_in, self.channels], jnp.float32, init=w_init)
        return w, hk.get_parameter("b", [self.channels], jnp.float32, init=jnp.zeros)


def dot(x: jax.Array, w: jax.Array, operands: str = "float32") -> jax.Array:
    """Returns x w over the last axis, [..., C] x [C, D] -> [..., D], in x's dtype.

    Args:
      x: activations.
      w: weights, rounded to x's dtype.
      operands: "bfloat16" rounds float32 operands of this product and of its gradient's two;
        sums stay float32.
    """
    axes = string.ascii_letters[4 : 3 + x.ndim]  # all but c and d
    dtype = operand_dtype(x, operands)
    return product(f"{axes}c,cd->{axes}d", x, w, dtype, result=x.dtype)


@dataclasses.dataclass(kw_only=True, eq=False)
class LayerNorm(hk.Module):
    """Normalises the last axis in float32, with scale and offset."""

    epsilon: float = EPSILON
    learned: bool = True  # False: scale and offset stay 1 and 0, and are no parameters
    name: str | None = None

    def __call__(self, x: jax.Array) -> jax.Array:  # [..., C] -> [..., C]
        return layer_norm(x, *self.parameters(x.shape[-1]), self.epsilon)

    def parameters(self, channels: int) -> tuple[jax.Array, jax.Array]:
        """Returns scale [channels] and offset [channels]."""
        if not self.learned:
            return jnp.ones([channels]), jnp.zeros([channels])
        scale = hk.get_parameter("scale", [channels], jnp.float32, init=jnp.ones)
        return scale, hk.get_parameter("offset", [channels], jnp.float32, init=jnp.zeros)


def layer_norm(
    x: jax.Array, scale: jax.Array, offset: jax.Array, epsilon: float = EPSILON
) -> jax.Array:
    """Normalises [..., C] in float32 and returns x's dtype."""
    y = jax.nn.standardize(x.astype(jnp.float32), axis=-1, epsilon=epsilon)
    y = y * jnp.broadcast_to(scale, y.shape) + jnp.broadcast_to(offset, y.shape)
    return y.astype(x.dtype)


def dropout(x: jax.Array, rate: float, *, is_training: bool) -> jax.Array:
    """Drops elements while training; evaluation draws no random key and needs none."""
    return hk.dropout(hk.next_rng_key(), rate, x) if is_training and rate > 0 else x
