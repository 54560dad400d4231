"""Images -> byte array: pixels, a learned 1x1 projection or a convolutional stem, and positions."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.inputs import permutation
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.convolution import batch_norm, convolve, max_pool
from perceiver.nn.layers import Linear
from perceiver.nn.positions import Dense, LearnedTable, SeparableFourier

STEMS = ("pixels", "conv1x1", "conv")
POSITIONS = ("fourier", "learned")  # of a Perceiver; others may do without: "none"


@dataclasses.dataclass(kw_only=True, eq=False)
class ImageInputs(hk.Module):
    """A stem for the content, positions of the stem's grid.

    Sources: Perceiver, section 3.2; Perceiver IO, appendix A.
    """

    stem: str  # one of STEMS
    stem_channels: int  # of the two convolutions; pixels keep their own
    stem_window: int = 7  # conv
    stem_stride: int = 2  # conv
    positions: str  # one of POSITIONS, or none
    bands: int  # K, Fourier
    max_resolution: tuple[int, ...] | None = None  # Fourier; None: the grid's own size
    position_channels: int = 0  # learned
    permutation: int = 0  # seed of one, of all elements with their positions; 0: none
    name: str | None = None

    def __call__(self, image: jax.Array, *, is_training: bool = False) -> ByteArray:  # [B, H, W, 3]
        content = self._stem(image, is_training)  # [B, h, w, F]
        segment = Segment(content, self._positions(content.shape[1:-1]), name="image")
        return ByteArray.of(permutation.permute(segment, self.permutation))

    @hk.transparent
    def as_given(self, weights: jax.Array) -> jax.Array:  # [..., M] -> [..., M]
        """Sorts weights of the byte array's elements by the pixels (of the stem's grid)."""
        return permutation.undo(weights, self.permutation)

    @hk.transparent
    def _stem(self, image, is_training):
        if self.stem == "pixels":
            return image
        if self.stem == "conv1x1":
            return Linear(channels=self.stem_channels, name="project")(image)
        stem = ConvStem(
            channels=self.stem_channels,
            window=self.stem_window,
            stride=self.stem_stride,
            name="stem",
        )
        return stem(image, is_training=is_training)

    @hk.transparent
    def _positions(self, dims):
        if self.positions == "none":
            return None
        if self.positions == "fourier":
            return SeparableFourier.of_grid(
                dims, bands=self.bands, max_resolution=self.max_resolution
            )
        size, channels = dims[0] * dims[1], self.position_channels
        table = LearnedTable(size=size, channels=channels, name="positions")()
        return Dense(Linear(channels=channels, name="project_positions")(table))


@dataclasses.dataclass(kw_only=True, eq=False)
class ConvStem(hk.Module):
    """Convolution, batch norm, ReLU, 3x3 max-pool of stride 2.

    Perceiver IO, appendix A.3: a window of 7x7 and a stride of 2, which leave a quarter of each
    side.
    """

    channels: int
    window: int
    stride: int
    name: str | None = None

    def __call__(
        self, image: jax.Array, *, is_training: bool
    ) -> jax.Array:  # [B, H, W, C] -> [B, H / (2 stride), W / (2 stride), channels]
        shape = (self.window, self.window, image.shape[-1], self.channels)  # HWIO
        init = hk.initializers.TruncatedNormal((self.window**2 * image.shape[-1]) ** -0.5)
        w = hk.get_parameter("w", shape, jnp.float32, init=init)
        x = jax.nn.relu(batch_norm(convolve(image, w, self.stride), is_training=is_training))
        return max_pool(x)
