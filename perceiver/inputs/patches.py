"""Images -> byte array of patches, each projected to the width of a Transformer."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.inputs import permutation
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.convolution import convolve_segment
from perceiver.nn.positions import LearnedTable, SeparableFourier


@dataclasses.dataclass(kw_only=True, eq=False)
class PatchInputs(hk.Module):
    """Squares of pixels (Dosovitskiy et al. 2020, section 3.1).

    Fourier features are those of each pixel, concatenated before the projection, as Perceiver's
    ViT-B-16 (FF) reads them; learned positions belong to the patches and are added after it. A
    class token is the first element, and has the first of the learned positions.
    """

    patch_size: int
    channels: int  # D, of an element
    positions: str  # fourier, learned
    bands: int  # K, Fourier
    max_resolution: tuple[int, ...] | None = None  # Fourier; None: the image's own size
    class_token: bool = False
    permutation: int = 0  # seed of one, of all pixels with their features; 0: none
    name: str | None = None

    def __call__(self, image: jax.Array) -> ByteArray:  # [B, H, W, C] -> M = (H W) / patch_size^2
        fourier, table = self.positions == "fourier", None
        if fourier:
            table = SeparableFourier.of_grid(
                image.shape[1:3], bands=self.bands, max_resolution=self.max_resolution
            )
        pixels = permutation.permute(Segment(image, table, name="image"), self.permutation)
        content = Projection(channels=self.channels, patch_size=self.patch_size, name="project")(
            pixels
        )  # [B, h, w, D]
        tokens = 1 if self.class_token else 0
        token = self._table(tokens, "class_token", content) if tokens else None  # [1, D]
        if not fourier:
            size = tokens + content.shape[1] * content.shape[2]
            learned = self._table(size, "positions", content)
            of_patches = learned[tokens:].reshape(1, *content.shape[1:])
            content = content + jnp.broadcast_to(of_patches, content.shape)
            token = token + learned[:tokens] if tokens else None
        image = Segment(content, name="image")
        if token is None:
            return ByteArray.of(image)
        token = jnp.broadcast_to(token, (content.shape[0], *token.shape))  # [B, 1, D]
        return ByteArray.of(Segment(token, name="class token"), image)

    @hk.transparent
    def _table(self, size: int, name: str, content: jax.Array) -> jax.Array:  # [size, D]
        return LearnedTable(size=size, channels=self.channels, name=name)().astype(content.dtype)


@dataclasses.dataclass(kw_only=True, eq=False)
class Projection(hk.Module):
    """A linear layer on each patch: a convolution as wide as its stride."""

    channels: int
    patch_size: int
    name: str | None = None

    def __call__(self, pixels: Segment) -> jax.Array:  # -> [B, h, w, channels]
        shape = (self.patch_size, self.patch_size, pixels.channels, self.channels)
        init = hk.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")
        w = hk.get_parameter("w", shape, jnp.float32, init=init)
        b = hk.get_parameter("b", [self.channels], jnp.float32, init=jnp.zeros)
        y = convolve_segment(pixels, w, self.patch_size, "VALID")
        return y + jnp.broadcast_to(b.astype(y.dtype), y.shape)
