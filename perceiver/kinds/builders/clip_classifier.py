"""The parts of a classifier of video, sound, or both."""

import jax
import jax.numpy as jnp

from perceiver.inputs.clip import ClipInputs, Mel
from perceiver.kinds import specs
from perceiver.kinds.builders.parts import Inputs, Kind, Parts, backbone, class_head


def _parts(spec: specs.ClipClassifier) -> Parts:
    inputs = ClipInputs(
        channels=spec.channels,
        video_patch=spec.video_patch,
        video_bands=spec.video_bands,
        video_resolution=spec.video_max_resolution or None,
        samples_per_patch=spec.samples_per_patch,
        audio_bands=spec.audio_bands,
        audio_resolution=spec.audio_max_resolution or None,
        mel=_mel(spec) if spec.audio == "mel" else None,
        video_dropout=spec.video_dropout,
        audio_dropout=spec.audio_dropout,
        dtype=jnp.dtype(spec.dtype),
        name="inputs",
    )
    head = class_head(spec)
    return Parts(
        preprocess=lambda x, *, is_training: inputs(
            x.get("video"), x.get("audio"), is_training=is_training
        ),
        body=backbone(spec, head),
        head=head,
        options=lambda x, byte_array: {},
    )


def _mel(spec: specs.ClipClassifier) -> Mel:
    return Mel(
        sample_rate=spec.sample_rate,
        window=spec.mel_window,
        hop=spec.mel_hop,
        bins=spec.mel_bins,
        axes=spec.mel_positions,
        time_mask=spec.mel_time_mask,
        bin_mask=spec.mel_bin_mask,
    )


def _shapes(spec: specs.ClipClassifier) -> dict[str, tuple[int, ...]]:
    shapes = {"video": spec.video_shape, "audio": (spec.samples,)}
    return {name: shapes[name] for name in spec.modalities}


def _example(spec: specs.ClipClassifier, batch_size: int):
    return {
        name: jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32)
        for name, shape in _shapes(spec).items()
    }


def _check(spec: specs.ClipClassifier, inputs: Inputs) -> None:
    batch = len(inputs[spec.modalities[0]])
    for name, shape in _shapes(spec).items():
        x = inputs[name]
        if x.shape != (batch, *shape):
            sizes = ", ".join(map(str, shape))
            raise ValueError(
                f"{name} must be [batch, {sizes}] with the same batch for all inputs, got {x.shape}"
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"{name} must be floating-point, got {x.dtype}; scale it to [-1, 1], as in training"
            )


# A spectrogram of sound in bfloat16 would hear its rounding as noise.
KIND = Kind(
    _parts,
    _example,
    _check,
    check_queries=lambda spec, inputs: None,
    exact=("audio",),
)
