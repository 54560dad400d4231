"""The one number per element that a layer norm needs: 1 / standard deviation, over all channels.

It depends on the inputs alone, not on any parameter of an attention, so a model that attends to
its inputs several times computes it once (`prepare`). Mean and squared deviations of the parts
(content, each table of a grid, constants) are combined by Chan's formula, which does not cancel.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.layers import EPSILON
from perceiver.nn.positions import SeparableFourier


class _Moments(NamedTuple):
    mean: jax.Array
    squares: jax.Array  # sum of squared deviations from the mean
    count: int


def prepare(byte_array: ByteArray) -> ByteArray:
    """Returns the byte array with every segment's `inverse_std` filled in."""
    segments = tuple(
        segment
        if segment.inverse_std is not None
        else dataclasses.replace(segment, inverse_std=inverse_std(segment))
        for segment in byte_array.segments
    )
    return dataclasses.replace(byte_array, segments=segments)


def inverse_std(segment: Segment) -> jax.Array:  # [B, M]
    """Returns 1 / sqrt(variance + epsilon) of each element's C channels, in float32."""
    batch, dims, positions = segment.content.shape[0], segment.dims, segment.positions
    parts = [_moments(segment.content)]  # [B, *dims]
    if isinstance(positions, SeparableFourier):
        for axis, table in enumerate(positions.tables):
            others = [i for i in range(len(dims) + 1) if i != axis + 1]
            parts.append(_moments(jnp.expand_dims(table, others)))  # [1, .., n, .., 1]
    elif positions is not None:
        features = positions.dense()  # [M, P] or [B, M, P]
        parts.append(_moments(features.reshape(-1, *dims, features.shape[-1])))
    if segment.constant is not None:
        parts.append(_moments(jnp.expand_dims(segment.constant, range(len(dims) + 1))))
    parts = [part for part in parts if part.count]
    channels = sum(part.count for part in parts)
    mean = sum(part.mean * (part.count / channels) for part in parts)
    squares = sum(part.squares + part.count * jnp.square(part.mean - mean) for part in parts)
    deviation = jax.lax.rsqrt(squares / channels + EPSILON)
    return jnp.broadcast_to(deviation, (batch, *dims)).reshape(batch, math.prod(dims))


def _moments(features: jax.Array) -> _Moments:  # [..., F] -> [...]
    features = features.astype(jnp.float32)
    mean = features.mean(axis=-1)
    return _Moments(mean, jnp.square(features - mean[..., None]).sum(axis=-1), features.shape[-1])
