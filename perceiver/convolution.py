"""Convolutions of a grid, and the batch norm that follows them."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.byte_array import Segment

# He et al. 2015, "Delving deep into rectifiers": keeps the variance through a ReLU.
_HE = hk.initializers.VarianceScaling(2.0, "fan_in", "truncated_normal")


def convolve(x: jax.Array, w: jax.Array, stride: int, padding: str = "SAME") -> jax.Array:
    """[B, H, W, C], [h, w, C, D] -> [B, H/stride, W/stride, D], in x's dtype."""
    strides, layout = (stride, stride), ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, w.astype(x.dtype), strides, padding, dimension_numbers=layout
    )


def batch_norm(x: jax.Array, *, is_training: bool, scale_init=None) -> jax.Array:
    """Normalises over all but the last axis, in float32, with averages for evaluation.

    The statistics are those of the array the step sees: of the replica's share under `pmap` (as in
    the papers' runs), of the whole batch otherwise.
    """
    norm = hk.BatchNorm(
        create_scale=True,
        create_offset=True,
        decay_rate=0.9,
        eps=1e-5,
        scale_init=scale_init,
        name="batch_norm",
    )
    return norm(x.astype(jnp.float32), is_training=is_training).astype(x.dtype)


@dataclasses.dataclass(kw_only=True, eq=False)
class Convolution(hk.Module):
    """A convolution, then batch norm."""

    channels: int
    window: int  # side
    stride: int = 1
    scale_init: hk.initializers.Initializer | None = None  # of the norm; None: ones
    name: str | None = None

    def __call__(self, x: jax.Array, *, is_training: bool) -> jax.Array:  # [B, H, W, C]
        shape = (self.window, self.window, x.shape[-1], self.channels)
        w = hk.get_parameter("w", shape, jnp.float32, init=_HE)
        y = convolve(x, w, self.stride)
        return batch_norm(y, is_training=is_training, scale_init=self.scale_init)


def convolve_segment(
    segment: Segment, w: jax.Array, stride: int, padding: str = "SAME"
) -> jax.Array:  # [B, *dims, C], [h, w, C, D] -> [B, *dims / stride, D]
    """Convolves the grid that `segment.dense()` is, content and positions concatenated.

    Positions are the same for the whole batch, and so is what a convolution makes of them: it is
    done once, and the many position channels meet no example.
    """
    content = segment.content
    y = convolve(content, w[:, :, : content.shape[-1]], stride, padding)
    if segment.positions is None:
        return y
    table = segment.positions.dense().astype(content.dtype)
    grid = table.reshape(1, *segment.dims, table.shape[-1])
    of_positions = convolve(grid, w[:, :, content.shape[-1] :], stride, padding)
    return y + jnp.broadcast_to(of_positions, y.shape)
