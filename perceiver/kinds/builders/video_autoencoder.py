"""The parts of an autoencoder of video with sound and a label."""

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.inputs.video import VideoInputs
from perceiver.kinds import specs
from perceiver.kinds.builders.parts import Inputs, Kind, Parts, backbone
from perceiver.outputs.video import VideoHead

_QUERIES = ("video_queries", "audio_queries")


def _parts(spec: specs.VideoAutoencoder) -> Parts:
    same = {
        "samples_per_patch": spec.samples_per_patch,
        "video_bands": spec.video_bands,
        "video_resolution": spec.video_resolution,
        "audio_bands": spec.audio_bands,
        "audio_resolution": spec.audio_resolution,
        "classes": spec.classes,
    }
    inputs = VideoInputs(
        channels=spec.channels,
        patch_size=spec.patch_size,
        label_mask_rate=spec.label_mask_rate,
        name="inputs",
        **same,
    )
    head = VideoHead(
        grid=spec.video_shape[:-1],
        pixel_channels=spec.video_shape[-1],
        audio_patches=spec.audio_patches,
        label_query_channels=spec.label_query_channels,
        channels=spec.query_channels,
        heads=spec.query_heads,
        query_residual=spec.query_residual,
        decoder_channels=spec.decoder_channels,
        activation=spec.activation,
        compute=spec.decode_compute,
        name="outputs",
        **same,
    )

    def preprocess(x, *, is_training):
        return inputs(x["video"], x["audio"], x.get("label"), is_training=is_training)

    return Parts(
        preprocess=preprocess,
        body=backbone(spec, head),
        head=head,
        options=lambda x, byte_array: {name: x.get(name) for name in _QUERIES},
    )


def _example(spec: specs.VideoAutoencoder, batch_size: int):
    return {
        "video": jax.ShapeDtypeStruct((batch_size, *spec.video_shape), jnp.float32),
        "audio": jax.ShapeDtypeStruct((batch_size, spec.samples), jnp.float32),
    }


def _check(spec: specs.VideoAutoencoder, inputs: Inputs) -> None:
    shapes = {"video": spec.video_shape, "audio": (spec.samples,), "label": (spec.classes,)}
    batch = inputs["video"].shape[0]
    for name, shape in shapes.items():
        x = inputs.get(name)
        if x is None:
            continue
        if x.shape != (batch, *shape):
            sizes = ", ".join(map(str, shape))
            raise ValueError(
                f"{name} must be [batch, {sizes}] with the same batch for all inputs, got {x.shape}"
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"{name} must be floating-point, got {x.dtype}; video is in [0, 1], audio in [-1, "
                "1], a label one-hot"
            )
    _check_queries(spec, inputs)


def _check_queries(spec: specs.VideoAutoencoder, inputs: Inputs) -> None:
    sizes = (int(np.prod(spec.video_shape[:-1])), spec.audio_patches)
    for name, size in zip(_QUERIES, sizes, strict=True):
        x = inputs.get(name)
        if x is None:
            continue
        if x.ndim != 1 or not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"{name} must be integers [o], got {x.dtype} {x.shape}")
        if isinstance(x, jax.core.Tracer) or not x.size:
            continue
        low, high = int(np.min(x)), int(np.max(x))
        if low < 0 or high >= size:
            raise ValueError(f"{name} must lie in [0, {size}), got {low} to {high}")


KIND = Kind(_parts, _example, _check, _check_queries, optional=("label", *_QUERIES))
