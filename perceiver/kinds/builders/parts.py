"""What all kinds of models are built from, and what a kind must say about itself."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from perceiver.kinds import specs
from perceiver.model.baseline import Baseline
from perceiver.model.encoder import Encoder
from perceiver.model.perceiver import Perceiver
from perceiver.model.processor import Processor
from perceiver.nn.byte_array import ByteArray
from perceiver.nn.layers import LayerNorm, Linear
from perceiver.nn.positions import LearnedTable
from perceiver.nn.residual import ResidualConnection
from perceiver.outputs.classes import MeanClassifier, QueryClassifier

Inputs = dict[str, jax.Array]


class Parts(NamedTuple):
    """A model's modules, made inside a Haiku transform."""

    preprocess: Callable[..., ByteArray]  # (inputs, *, is_training) -> byte array
    body: Perceiver | Baseline
    head: Any  # see perceiver.outputs
    # (inputs, function that gives their byte array) -> the head's options
    options: Callable[[Inputs, Callable[[], ByteArray]], dict[str, Any]]
    # weights [..., M] of the byte array's elements -> of the elements in the inputs' own order
    as_given: Callable[[jax.Array], jax.Array] = lambda weights: weights


class Kind(NamedTuple):
    """All that differs between kinds of models."""

    parts: Callable[[Any], Parts]  # spec -> modules
    example: Callable[[Any, int], dict[str, jax.ShapeDtypeStruct]]  # spec, batch size -> inputs
    check: Callable[[Any, Inputs], None]  # spec, inputs; raises ValueError
    check_queries: Callable[[Any, Inputs], None]  # the same of what the decoder alone needs
    optional: tuple[str, ...] = ()  # names of inputs that may be left out
    exact: tuple[str, ...] = ()  # names of inputs that stay float32, whatever the compute dtype


def backbone(spec: specs.Backbone, decode: Callable) -> Perceiver | Baseline:
    """Returns the body that a spec asks for, of any kind of model, with its head."""
    common = {
        "dropout_rate": spec.dropout_rate,
        "attention_dropout_rate": spec.attention_dropout_rate,
        "activation": spec.activation,
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
            residual=spec.residual_connection,
            name=_numbered("processor", index),
            **common,
        )

    if not spec.has_latents:
        processors = [processor(i) for i in range(max(spec.processors) + 1)]
        return _on_all_elements(
            [processors[i] for i in spec.processors],
            decode,
            spec,
            project=Linear(channels=spec.latent_channels, name="project"),
        )
    return Perceiver(
        latents=LearnedTable(size=spec.latents, channels=spec.latent_channels, name="latents"),
        encoders=tuple(encoder(i) for i in range(max(spec.encoders) + 1)),
        processors=tuple(processor(i) for i in range(max(spec.processors) + 1)),
        sharing=spec.sharing,
        decode=decode,
        dtype=jnp.dtype(spec.dtype),
    )


def class_head(
    spec: specs.ImageClassifier | specs.ClipClassifier,
) -> MeanClassifier | QueryClassifier:
    """Returns the head that makes logits of latents."""
    if spec.head == "mean":
        return MeanClassifier(classes=spec.classes, name="outputs")
    return QueryClassifier(
        classes=spec.classes,
        channels=spec.query_channels,
        heads=spec.query_heads,
        query_residual=spec.query_residual,
        activation=spec.activation,
        compute=spec.decode_compute,
        name="outputs",
    )


def transformer(spec: specs.Transformer, decode: Callable) -> Baseline:
    """Returns a processor on all elements of a byte array, as wide as they are, with its head."""
    processor = Processor(
        layers=spec.layers,
        heads=spec.heads,
        widening=spec.widening,
        activation=spec.activation,
        dropout_rate=spec.dropout_rate,
        attention_dropout_rate=spec.attention_dropout_rate,
        compute=spec.compute,
        remat=spec.remat,
        residual=spec.residual_connection,
        name="processor",
    )
    return _on_all_elements([processor], decode, spec)


def _on_all_elements(
    processors: Sequence[Processor],
    decode: Callable,
    spec: specs.Backbone | specs.Transformer,
    project: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> Baseline:
    residual: ResidualConnection = spec.residual_connection

    def features(byte_array: ByteArray, *, is_training: bool) -> jax.Array:  # -> [B, M, D]
        x = project(byte_array.dense().astype(spec.dtype))  # embedded tokens are float32
        mask = byte_array.mask
        for processor in processors:
            x = processor(x, mask=mask, is_training=is_training)
        # pre-norm layers leave the stream itself without one
        return LayerNorm(epsilon=residual.epsilon, name="norm")(x) if residual.alpha is None else x

    return Baseline(features=features, decode=decode)


def _numbered(name: str, index: int) -> str:
    return name if index == 0 else f"{name}_{index}"
