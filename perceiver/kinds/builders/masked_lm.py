"""The parts of a masked language model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.inputs.text import TextInputs
from perceiver.kinds import specs
from perceiver.kinds.builders.parts import Inputs, Kind, Parts, backbone
from perceiver.nn.positions import LearnedTable
from perceiver.outputs.text import TiedText
from perceiver.text import tokenizer


def text_inputs(spec: Any, channels: int, **own: Any) -> tuple[LearnedTable, TextInputs]:
    """Returns the embedding of tokens, and the inputs that read it, of any model of texts.

    Args:
      spec: of the model.
      channels: of a token.
      own: fields of the inputs that not every model of texts has.
    """
    embedding = LearnedTable(
        size=spec.vocabulary, channels=channels, scale=spec.embedding_scale, name="embedding"
    )
    inputs = TextInputs(
        embedding=embedding,
        max_length=spec.max_length,
        position_scale=spec.position_scale,
        position_start=spec.position_start,
        name="inputs",
        **own,
    )
    return embedding, inputs


def _parts(spec: specs.MaskedLM) -> Parts:
    embedding, inputs = text_inputs(spec, spec.embedding_channels)
    head = TiedText(
        embedding=embedding,
        max_length=spec.max_length,
        heads=spec.query_heads,
        qk_channels=spec.query_qk_channels,
        query_residual=spec.query_residual,
        query_start=spec.position_start,
        activation=spec.activation,
        compute=spec.decode_compute,
        name="outputs",
    )
    return Parts(
        preprocess=lambda x, *, is_training: inputs(x["tokens"], x["input_mask"]),
        body=backbone(spec, head),
        head=head,
        options=lambda x, byte_array: {
            "length": x["input_mask"].shape[1],
            "query_mask": x["input_mask"],
            "latent_mask": None if spec.has_latents else x["input_mask"],
        },
    )


def _example(spec: specs.MaskedLM, batch_size: int):
    shape = (batch_size, spec.max_length)
    return {
        "tokens": jax.ShapeDtypeStruct(shape, jnp.int32),
        "input_mask": jax.ShapeDtypeStruct(shape, jnp.bool_),
    }


def _check(spec: specs.MaskedLM, inputs: Inputs) -> None:
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


def _check_queries(spec: specs.MaskedLM, inputs: Inputs) -> None:
    if "input_mask" not in inputs:
        raise ValueError(f"decoding needs 'input_mask' [batch, length], got {sorted(inputs)}")
    if inputs["input_mask"].shape[1] > spec.max_length:
        raise ValueError(
            f"input_mask {inputs['input_mask'].shape} is longer than the model's "
            f"{spec.max_length} positions"
        )


KIND = Kind(_parts, _example, _check, _check_queries)
