"""Builders: from a spec to the modules of a model, and what each kind takes as inputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perceiver import specs, tokenizer
from perceiver.byte_array import ByteArray
from perceiver.encoder import Encoder
from perceiver.inputs.image import ImageInputs
from perceiver.inputs.text import TextInputs
from perceiver.model import Perceiver
from perceiver.outputs.classes import MeanClassifier, QueryClassifier
from perceiver.outputs.text import TiedText
from perceiver.positions import LearnedTable
from perceiver.processor import Processor

Inputs = dict[str, jax.Array]


class Parts(NamedTuple):
    """A model's modules, made inside a Haiku transform."""

    preprocess: Callable[..., ByteArray]  # (inputs, *, is_training) -> byte array
    perceiver: Perceiver
    decode_options: Callable[[Inputs], dict[str, Any]]


def _backbone(spec: specs.Backbone, decode: Callable) -> Perceiver:
    common = {
        "dropout_rate": spec.dropout_rate,
        "attention_dropout_rate": spec.attention_dropout_rate,
        "compute": spec.compute,
    }

    def encoder(index):
        return Encoder(
            heads=spec.cross_heads,
            qk_channels=spec.cross_qk_channels or None,
            v_channels=spec.cross_v_channels or None,
            widening=spec.cross_widening,
            name=_numbered("encoder", index),
            **common,
        )

    def processor(index):
        return Processor(
            layers=spec.layers,
            blocks=spec.blocks,
            heads=spec.self_heads,
            qk_channels=spec.self_qk_channels or None,
            v_channels=spec.self_v_channels or None,
            widening=spec.self_widening,
            remat=spec.remat,
            name=_numbered("processor", index),
            **common,
        )

    return Perceiver(
        latents=LearnedTable(size=spec.latents, channels=spec.latent_channels, name="latents"),
        encoders=tuple(encoder(i) for i in range(max(spec.encoders) + 1)),
        processors=tuple(processor(i) for i in range(max(spec.processors) + 1)),
        sharing=spec.sharing,
        decode=decode,
        dtype=jnp.dtype(spec.dtype),
    )


def _numbered(name: str, index: int) -> str:
    return name if index == 0 else f"{name}_{index}"


def _image_parts(spec: specs.ImageClassifier) -> Parts:
    inputs = ImageInputs(
        stem=spec.stem,
        stem_channels=spec.stem_channels,
        positions=spec.positions,
        bands=spec.bands,
        max_resolution=spec.max_resolution or None,
        position_channels=spec.position_channels,
        name="inputs",
    )
    if spec.head == "mean":
        head = MeanClassifier(classes=spec.classes, name="outputs")
    else:
        head = QueryClassifier(
            classes=spec.classes,
            channels=spec.query_channels,
            heads=spec.query_heads,
            query_residual=spec.query_residual,
            compute=spec.decode_compute,
            name="outputs",
        )
    return Parts(
        preprocess=lambda x, *, is_training: inputs(x["image"], is_training=is_training),
        perceiver=_backbone(spec, head),
        decode_options=lambda x: {},
    )


def _text_parts(spec: specs.MaskedLM) -> Parts:
    embedding = LearnedTable(
        size=spec.vocabulary,
        channels=spec.embedding_channels,
        scale=spec.embedding_scale,
        name="embedding",
    )
    inputs = TextInputs(
        embedding=embedding,
        max_length=spec.max_length,
        position_scale=spec.position_scale,
        name="inputs",
    )
    head = TiedText(
        embedding=embedding,
        max_length=spec.max_length,
        heads=spec.query_heads,
        qk_channels=spec.query_qk_channels,
        query_residual=spec.query_residual,
        compute=spec.decode_compute,
        name="outputs",
    )
    return Parts(
        preprocess=lambda x, *, is_training: inputs(x["tokens"], x["input_mask"]),
        perceiver=_backbone(spec, head),
        decode_options=lambda x: {"length": x["tokens"].shape[1], "query_mask": x["input_mask"]},
    )


def _image_example(spec: specs.ImageClassifier, batch_size: int):
    return {"image": jax.ShapeDtypeStruct((batch_size, *spec.image_shape), jnp.float32)}


def _text_example(spec: specs.MaskedLM, batch_size: int):
    shape = (batch_size, spec.max_length)
    return {
        "tokens": jax.ShapeDtypeStruct(shape, jnp.int32),
        "input_mask": jax.ShapeDtypeStruct(shape, jnp.bool_),
    }


def _check_image(spec: specs.ImageClassifier, inputs: Inputs) -> None:
    shape = inputs["image"].shape
    if len(shape) != 4 or shape[1:] != spec.image_shape:
        raise ValueError(
            f"images must be [batch, {', '.join(map(str, spec.image_shape))}], got {shape}"
        )
    if not jnp.issubdtype(inputs["image"].dtype, jnp.floating):
        raise ValueError(
            f"images must be floating, got {inputs['image'].dtype}; scale them as in training"
        )


def _check_text(spec: specs.MaskedLM, inputs: Inputs) -> None:
    tokens, mask = inputs["tokens"], inputs["input_mask"]
    if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(
            f"tokens must be integers [batch, length], got {tokens.dtype} {tokens.shape}"
        )
    if mask.shape != tokens.shape or mask.dtype != jnp.bool_:
        raise ValueError(
            f"input_mask must be bool {tokens.shape} (True = real), got {mask.dtype} {mask.shape}"
        )
    if tokens.shape[1] > spec.max_length:
        raise ValueError(
            f"a sequence of {tokens.shape[1]} tokens is longer than the model's {spec.max_length} "
            "positions; cut it into windows, or build the model with a larger max_length"
        )
    if not isinstance(tokens, jax.core.Tracer):
        tokenizer.check_ids(np.asarray(tokens), spec.vocabulary)


class Kind(NamedTuple):
    """All that differs between kinds of models."""

    parts: Callable[[Any], Parts]  # spec -> modules
    example: Callable[[Any, int], dict[str, jax.ShapeDtypeStruct]]  # spec, batch size -> inputs
    check: Callable[[Any, Inputs], None]  # spec, inputs; raises ValueError


KINDS = {
    "image_classifier": Kind(_image_parts, _image_example, _check_image),
    "masked_lm": Kind(_text_parts, _text_example, _check_text),
}
