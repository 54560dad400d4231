"""The parts of an image classifier."""

import jax
import jax.numpy as jnp

from perceiver.inputs.image import ImageInputs
from perceiver.kinds import specs
from perceiver.kinds.builders.parts import Inputs, Kind, Parts, backbone, class_head


def _parts(spec: specs.ImageClassifier) -> Parts:
    inputs = ImageInputs(
        stem=spec.stem,
        stem_channels=spec.stem_channels,
        stem_window=spec.stem_window,
        stem_stride=spec.stem_stride,
        positions=spec.positions,
        bands=spec.bands,
        max_resolution=spec.max_resolution or None,
        position_channels=spec.position_channels,
        permutation=spec.permutation,
        name="inputs",
    )
    head = class_head(spec)
    return Parts(
        preprocess=lambda x, *, is_training: inputs(x["image"], is_training=is_training),
        body=backbone(spec, head),
        head=head,
        options=lambda x, byte_array: {},
        as_given=inputs.as_given,
    )


def _example(spec: specs.ImageClassifier, batch_size: int):
    return {"image": jax.ShapeDtypeStruct((batch_size, *spec.image_shape), jnp.float32)}


def _check(spec: specs.ImageClassifier, inputs: Inputs) -> None:
    shape = inputs["image"].shape
    if len(shape) != 4 or shape[1:] != spec.image_shape:
        raise ValueError(
            f"images must be [batch, {', '.join(map(str, spec.image_shape))}], got {shape}"
        )
    if not jnp.issubdtype(inputs["image"].dtype, jnp.floating):
        raise ValueError(
            f"images must be floating-point, got {inputs['image'].dtype}; scale them as in training"
        )


KIND = Kind(_parts, _example, _check, check_queries=lambda spec, inputs: None)
