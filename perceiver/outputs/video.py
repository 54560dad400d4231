"""Video head: pixels, patches of sound and a label, each asked for by queries of its own."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.cross_attention import Plan
from perceiver.model.decoder import Decoder
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.layers import Linear
from perceiver.nn.positions import (
    Dense,
    LearnedTable,
    SeparableFourier,
    coordinates_at,
    fourier_features,
)


@dataclasses.dataclass(kw_only=True, eq=False)
class VideoHead(hk.Module):
    """One decoder for three modalities (Perceiver IO, section 4.3).

    A query is a position and a learned vector that pads it to a common width; no array of queries
    is ever formed. Positions of a grid end one step before 1, also where all of it is asked for:
    the released weights have seen no others.
    """

    grid: tuple[int, int, int]  # T, H, W in pixels
    pixel_channels: int  # C
    video_bands: int
    video_resolution: tuple[int, ...]
    audio_patches: int
    samples_per_patch: int
    audio_bands: int
    audio_resolution: tuple[int, ...]
    classes: int  # K
    label_query_channels: int
    channels: int  # E, common to all modalities' queries
    heads: int
    query_residual: bool
    decoder_channels: int
    activation: str = "gelu_tanh"  # of the decoder's MLP, one of layers.ACTIVATIONS
    compute: Compute = Compute()
    name: str | None = None

    def __call__(
        self, latents, *, video_queries=None, audio_queries=None, is_training=False
    ) -> dict[str, jax.Array]:
        """Reconstructs everything, or what is asked for of video and audio.

        Args:
          latents: [B, N, D].
          video_queries: [o] numbers of pixels, row-major over T, H, W. None: all.
          audio_queries: [o] numbers of patches of sound. None: all.
          is_training: whether to drop out.

        Returns:
          {"video": [B, T, H, W, C] or [B, o, C], "audio": [B, S] or [B, o * samples_per_patch],
          "label": logits [B, K]}
        """
        queries = self.queries(latents, video_queries=video_queries, audio_queries=audio_queries)
        rows = self.read(latents, queries, is_training=is_training)
        batch, video = latents.shape[0], rows["video"]
        if video_queries is None:
            video = video.reshape(batch, *self.grid, self.pixel_channels)
        return {
            "video": video,
            "audio": rows["audio"].reshape(batch, -1),
            "label": rows["label"][:, 0],
        }

    @hk.name_like("__call__")
    def queries(self, latents, *, video_queries=None, audio_queries=None) -> dict[str, ByteArray]:
        """Returns the queries of each modality: pixels, patches of sound, the label."""
        audio = self._points(
            latents,
            audio_queries,
            dims=(self.audio_patches,),
            bands=self.audio_bands,
            max_resolution=self.audio_resolution,
        )
        video = self._points(
            latents,
            video_queries,
            dims=self.grid,
            bands=self.video_bands,
            max_resolution=self.video_resolution,
        )
        with hk.name_scope("audio"):
            audio = self._padded("audio", audio)
        with hk.name_scope("video"):
            video = self._padded("video", video)
        with hk.name_scope("label"):
            table = LearnedTable(size=1, channels=self.label_query_channels, name="queries")()
            table = jnp.broadcast_to(table.astype(latents.dtype), (len(latents), *table.shape))
            label = self._padded("label", Segment(table))
        return {"audio": audio, "video": video, "label": label}

    @hk.name_like("__call__")
    def read(self, latents, queries, *, is_training=False) -> dict[str, jax.Array]:
        """[B, N, D], {modality: o queries} -> {modality: [B, o, channels of a query's answer]}."""
        decoder = self._decoder()
        return {
            name: decoder(x, latents, then=self._project(name), is_training=is_training)
            for name, x in queries.items()
        }

    @hk.name_like("__call__")
    def plans(self, latents, **options) -> dict[str, Plan]:
        """Returns which path the decoder takes for each modality."""
        decoder, queries = self._decoder(), self.queries(latents, **options)
        return {f"decoder {name}": decoder.plan(x, latents) for name, x in queries.items()}

    @hk.transparent
    def _points(self, latents, indices, *, dims, bands, max_resolution) -> Segment:
        """Returns queries that are positions and nothing else: of a whole grid, or some of it."""
        kind = {"bands": bands, "max_resolution": max_resolution}
        if indices is None:
            positions, shape = SeparableFourier.of_grid(dims, inclusive=False, **kind), dims
        else:
            points = coordinates_at(indices, dims)
            positions, shape = Dense(fourier_features(points, **kind)), indices.shape
        return Segment(jnp.zeros((latents.shape[0], *shape, 0), latents.dtype), positions)

    @hk.transparent
    def _padded(self, modality: str, segment: Segment) -> ByteArray:
        size = self.channels - segment.channels
        padding = LearnedTable(size=1, channels=size, name="padding")()[0]
        return ByteArray.of(dataclasses.replace(segment, constant=padding, name=modality))

    @hk.transparent
    def _project(self, modality: str) -> tuple[jax.Array, jax.Array]:
        widths = {
            "audio": self.samples_per_patch,
            "video": self.pixel_channels,
            "label": self.classes,
        }
        with hk.name_scope(modality):
            project = Linear(channels=widths[modality], name="project")
            return project.parameters(self.decoder_channels)

    @hk.transparent
    def _decoder(self) -> Decoder:
        return Decoder(
            heads=self.heads,
            query_residual=self.query_residual,
            out_channels=self.decoder_channels,
            activation=self.activation,
            compute=self.compute,
            name="decoder",
        )
