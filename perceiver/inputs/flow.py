"""Two frames -> byte array: each pixel with its neighbourhood in both frames, and positions."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.layers import Linear
from perceiver.nn.positions import SeparableFourier


@dataclasses.dataclass(kw_only=True, eq=False)
class FlowInputs(hk.Module):
    """A square of side `patch_size` around each pixel, of both frames, projected.

    Source: Perceiver IO, section 4.2 and appendix H.
    """

    patch_size: int  # odd
    patch_channels: int
    bands: int  # K, Fourier
    max_resolution: tuple[int, ...]  # of height and width
    name: str | None = None

    def __call__(self, frames: jax.Array) -> ByteArray:  # [B, 2, H, W, C]
        batch, times, *dims, channels = frames.shape
        both = jnp.moveaxis(frames, 1, 3).reshape(batch, *dims, times * channels)
        content = self._project(both, times)  # [B, H, W, patch_channels]
        positions = SeparableFourier.of_grid(
            tuple(dims), bands=self.bands, max_resolution=self.max_resolution
        )
        return ByteArray.of(Segment(content, positions, name="frames"))

    @hk.transparent
    def _project(self, both: jax.Array, times: int) -> jax.Array:
        # Patches times a matrix are a convolution: so no array holds nine copies of each pixel.
        side, width = self.patch_size, both.shape[-1]
        project = Linear(channels=self.patch_channels, name="project")
        w, b = project.parameters(side * side * width)  # rows: frame, row, column, channel
        w = w.reshape(times, side, side, width // times, -1)
        w = jnp.moveaxis(w, 0, 2).reshape(side, side, width, -1)  # HWIO
        y = jax.lax.conv_general_dilated(
            both, w.astype(both.dtype), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + jnp.broadcast_to(b.astype(y.dtype), y.shape)
