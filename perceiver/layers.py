"""The three smallest parts, each keeping its parameters in float32 and computing in its input's
dtype.

So the compute dtype of a model is one choice: the dtype of the arrays that enter it. Norms compute
in float32.
"""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

# Weights inside attention and MLPs: variance 1/fan_in after truncation. Elsewhere Haiku's own
# default is used, a normal of standard deviation 1/sqrt(fan_in) cut at two, so slightly narrower
# (as in the released models).
FAN_IN = hk.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")


@dataclasses.dataclass(kw_only=True, eq=False)
class Linear(hk.Module):
    """x w + b over the last axis."""

    channels: int
    w_init: hk.initializers.Initializer | None = None  # None: truncated normal, 1/sqrt(fan_in)
    name: str | None = None

    def __call__(self, x: jax.Array) -> jax.Array:  # [..., C] -> [..., channels]
        fan_in = x.shape[-1]
        w_init = self.w_init or hk.initializers.TruncatedNormal(fan_in**-0.5)
        w = hk.get_parameter("w", [fan_in, self.channels], jnp.float32, init=w_init)
        b = hk.get_parameter("b", [self.channels], jnp.float32, init=jnp.zeros)
        y = jnp.dot(x, w.astype(x.dtype))
        return y + jnp.broadcast_to(b.astype(x.dtype), y.shape)


@dataclasses.dataclass(kw_only=True, eq=False)
class LayerNorm(hk.Module):
    """Normalises the last axis in float32, epsilon 1e-5, with scale and offset."""

    name: str | None = None

    def __call__(self, x: jax.Array) -> jax.Array:  # [..., C] -> [..., C]
        scale = hk.get_parameter("scale", [x.shape[-1]], jnp.float32, init=jnp.ones)
        offset = hk.get_parameter("offset", [x.shape[-1]], jnp.float32, init=jnp.zeros)
        y = jax.nn.standardize(x.astype(jnp.float32), axis=-1, epsilon=1e-5)
        y = y * jnp.broadcast_to(scale, y.shape) + jnp.broadcast_to(offset, y.shape)
        return y.astype(x.dtype)


def dropout(x: jax.Array, rate: float, *, is_training: bool) -> jax.Array:
    """Drops elements while training; evaluation draws no random key and needs none."""
    return hk.dropout(hk.next_rng_key(), rate, x) if is_training and rate > 0 else x
