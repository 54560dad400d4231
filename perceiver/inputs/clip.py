"""Video, sound, or both -> byte array of one segment each, filled up to one width."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.inputs.audio import audio_segment
from perceiver.inputs.mel import log_mel
from perceiver.inputs.spec_augment import mask_spectrogram
from perceiver.inputs.video import space_to_depth
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.positions import LearnedTable, SeparableFourier

# What a clip without picture, or without sound, is given in its place. It enters the byte array as
# zeros, as does what training drops ("entirely zeroed", Perceiver, section 4.2).
BLACK, SILENT = -1.0, 0.0
# Decibels of sound in [-1, 1] reach from -100, silence, to some 35: the middle becomes 0, and all
# about as large as the other features.
_MIDDLE, _SPREAD = -30.0, 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mel:
    """How sound becomes a spectrogram, see `perceiver.inputs.mel`, and what training hides."""

    sample_rate: int
    window: int
    hop: int
    bins: int
    axes: int  # of positions: 1 along all values, frame by frame; 2 for time and bin
    time_mask: int = 0  # frames
    bin_mask: int = 0  # bins


@dataclasses.dataclass(kw_only=True, eq=False)
class ClipInputs(hk.Module):
    """Space-time patches of pixels; patches of samples, or a spectrogram (Perceiver, section 4.2).

    A modality's channels are content, Fourier positions, and, where there are two modalities, a
    learned vector that fills them up to `channels` and so tells which modality it is.
    """

    channels: int  # C, common to all modalities
    video_patch: tuple[int, int, int]
    video_bands: int
    video_resolution: tuple[int, ...] | None  # None: the grid's own
    samples_per_patch: int
    audio_bands: int
    audio_resolution: tuple[int, ...] | None  # None: the grid's own
    mel: Mel | None = None  # None: raw samples
    video_dropout: float = 0.0  # share of examples that lose the modality in training
    audio_dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32  # of the byte array
    name: str | None = None

    def __call__(
        self,
        video: jax.Array | None = None,
        audio: jax.Array | None = None,
        *,
        is_training: bool = False,
    ) -> ByteArray:
        """[B, T, H, W, C] in [-1, 1] or None, [B, S] samples or None -> byte array."""
        segments = []
        if video is not None:
            kept = _kept(video, self.video_dropout if is_training else 0.0, BLACK)
            segments.append(_zeroed(self._video(video.astype(self.dtype)), kept))
        if audio is not None:
            kept = _kept(audio, self.audio_dropout if is_training else 0.0, SILENT)
            segment = self._raw(audio) if self.mel is None else self._mel(audio, is_training)
            segments.append(_zeroed(segment, kept))
        if len(segments) > 1:
            segments = [self._filled_up(segment) for segment in segments]
        return ByteArray.of(*segments)

    @hk.transparent
    def _video(self, video: jax.Array) -> Segment:
        content = space_to_depth(video, self.video_patch)
        grid = SeparableFourier.of_grid(
            content.shape[1:-1], bands=self.video_bands, max_resolution=self.video_resolution
        )
        return Segment(content, grid, name="video")

    @hk.transparent
    def _raw(self, audio: jax.Array) -> Segment:
        return audio_segment(
            audio.astype(self.dtype),
            samples_per_patch=self.samples_per_patch,
            bands=self.audio_bands,
            max_resolution=self.audio_resolution,
        )

    @hk.transparent
    def _mel(self, audio: jax.Array, is_training: bool) -> Segment:
        mel = self.mel
        spectrogram = log_mel(
            audio, sample_rate=mel.sample_rate, window=mel.window, hop=mel.hop, bins=mel.bins
        )
        if is_training and (mel.time_mask or mel.bin_mask):
            spectrogram = mask_spectrogram(
                hk.next_rng_key(), spectrogram, time_width=mel.time_mask, bin_width=mel.bin_mask
            )
        content = ((spectrogram - _MIDDLE) / _SPREAD).astype(self.dtype)
        if mel.axes == 1:
            content = content.reshape(content.shape[0], -1)  # frame by frame
        grid = SeparableFourier.of_grid(
            content.shape[1:], bands=self.audio_bands, max_resolution=self.audio_resolution
        )
        return Segment(content[..., None], grid, name="audio")

    @hk.transparent
    def _filled_up(self, segment: Segment) -> Segment:
        with hk.name_scope(segment.name):
            size = self.channels - segment.channels
            vector = LearnedTable(size=1, channels=size, name="modality")()
        return dataclasses.replace(segment, constant=vector[0])


def _kept(x: jax.Array, rate: float, missing: float) -> jax.Array:  # [B, ...] -> bool [B]
    """Says which examples have the modality, and are not among the share that loses it."""
    there = (x != missing).any(axis=tuple(range(1, x.ndim)))
    if rate == 0:
        return there
    return there & ~jax.random.bernoulli(hk.next_rng_key(), rate, there.shape)


def _zeroed(segment: Segment, kept: jax.Array) -> Segment:
    content = segment.content
    kept = jnp.expand_dims(kept, range(1, content.ndim))
    return dataclasses.replace(segment, content=jnp.where(kept, content, 0))
