"""Video, sound and a label -> byte array of three segments, padded to one width."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.inputs.audio import audio_segment
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.positions import LearnedTable, SeparableFourier


def space_to_depth(video: jax.Array, patch: tuple[int, int, int]) -> jax.Array:
    """Puts blocks of pixels into channels.

    Args:
      video: [B, T, H, W, C].
      patch: (t, h, w) of a block; they divide T, H and W.

    Returns:
      [B, T / t, H / h, W / w, t * h * w * C], in the order time, row, column, channel.
    """
    batch, *sizes, channels = video.shape
    grid = [size // side for size, side in zip(sizes, patch, strict=True)]
    split = [n for pair in zip(grid, patch, strict=True) for n in pair]
    x = video.reshape(batch, *split, channels).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(batch, *grid, -1)


@dataclasses.dataclass(kw_only=True, eq=False)
class VideoInputs(hk.Module):
    """Squares of pixels, patches of sound, one label (Perceiver IO, appendix I).

    A modality's channels are content, positions and a learned vector that pads it to `channels`. A
    mask token is as wide as all of them together. Each modality has one, as in the released
    weights, but only the label's is ever used: it stands for a label that is not given and, at
    random, in training for one that is. So the model learns to name the label.
    """

    channels: int  # C, common to all modalities
    patch_size: int
    samples_per_patch: int
    video_bands: int
    video_resolution: tuple[int, ...]
    audio_bands: int
    audio_resolution: tuple[int, ...]
    classes: int
    label_mask_rate: float
    name: str | None = None

    def __call__(
        self,
        video: jax.Array,
        audio: jax.Array,
        label: jax.Array | None = None,
        *,
        is_training: bool = False,
    ) -> ByteArray:
        """[B, T, H, W, C] in [0, 1], [B, S] in [-1, 1], [B, K] or None -> byte array."""
        content = space_to_depth(video, (1, self.patch_size, self.patch_size))
        grid = SeparableFourier.of_grid(
            content.shape[1:-1], bands=self.video_bands, max_resolution=self.video_resolution
        )
        audio = audio_segment(
            audio,
            samples_per_patch=self.samples_per_patch,
            bands=self.audio_bands,
            max_resolution=self.audio_resolution,
        )
        video = Segment(content, grid, name="video")
        return ByteArray.of(
            self._padded(audio),
            self._padded(video),
            self._label(label, video.content, is_training=is_training),
        )

    @hk.transparent
    def _padded(self, segment: Segment) -> Segment:
        padding, _ = self._learned(segment.name, segment.channels)
        return dataclasses.replace(segment, constant=padding)

    @hk.transparent
    def _label(self, label, like, *, is_training: bool) -> Segment:
        padding, token = self._learned("label", self.classes)
        token = jnp.broadcast_to(
            token.astype(like.dtype)[None, None], (len(like), 1, self.channels)
        )
        if label is None:
            return Segment(token, name="label")
        segment = Segment(label[:, None], constant=padding, name="label")
        if not is_training or self.label_mask_rate == 0:
            return segment
        masked = jax.random.bernoulli(hk.next_rng_key(), self.label_mask_rate, (len(like), 1, 1))
        return Segment(jnp.where(masked, token, segment.dense()), name="label")

    @hk.transparent
    def _learned(self, modality: str, channels: int) -> tuple[jax.Array, jax.Array]:
        """Returns what a modality of some channels is padded by [C - channels], its mask token."""
        with hk.name_scope(modality):
            padding = LearnedTable(size=1, channels=self.channels - channels, name="padding")()
            token = LearnedTable(size=1, channels=self.channels, name="mask_token")()
        return padding[0], token[0]
