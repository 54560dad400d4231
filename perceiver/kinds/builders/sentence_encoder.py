"""The parts of a sentence encoder: a masked language model's encoder on one text, two or three."""

import jax
import jax.numpy as jnp

from perceiver.kinds import specs
from perceiver.kinds.builders import masked_lm
from perceiver.kinds.builders.parts import Inputs, Kind, Parts, backbone
from perceiver.nn.byte_array import ByteArray
from perceiver.outputs.sentence import SentenceEmbedding
from perceiver.text import tokenizer

# Names of the tokens and the mask of each text.
TEXTS = (("tokens", "input_mask"), ("tokens_b", "mask_b"), ("tokens_c", "mask_c"))
_FURTHER = tuple(name for names in TEXTS[1:] for name in names)


def _parts(spec: specs.SentenceEncoder) -> Parts:
    _, inputs = masked_lm.text_inputs(spec, spec.embedding_channels)
    head = SentenceEmbedding(
        pooling=spec.pooling,
        classes=spec.classes,
        channels=spec.embedding_channels,
        heads=spec.query_heads,
        qk_channels=spec.query_qk_channels,
        query_residual=spec.query_residual,
        activation=spec.activation,
        compute=spec.decode_compute,
        name="outputs",
    )

    def preprocess(x: Inputs, *, is_training: bool) -> ByteArray:
        tokens, mask = (
            _side_by_side([x[name] for name in names]) for names in zip(*_given(x), strict=True)
        )
        if spec.has_token:
            tokens = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=tokenizer.CLS)
            mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        return inputs(tokens, mask)

    return Parts(
        preprocess=preprocess,
        body=backbone(spec, head),
        head=head,
        options=lambda x, byte_array: {
            "texts": max(1, len(_given(x))),
            "latent_mask": None if spec.has_latents else byte_array().mask,
        },
    )


def _side_by_side(texts: list[jax.Array]) -> jax.Array:  # [B, M] each -> [B * texts, M]
    return jnp.stack(texts, axis=1).reshape(-1, texts[0].shape[-1])


def _given(inputs: Inputs) -> list[tuple[str, str]]:
    """Returns the names of the texts that there are."""
    return [names for names in TEXTS if inputs.get(names[0]) is not None]


def _example(spec: specs.SentenceEncoder, batch_size: int):
    shape = (batch_size, spec.text_length)
    return {
        "tokens": jax.ShapeDtypeStruct(shape, jnp.int32),
        "input_mask": jax.ShapeDtypeStruct(shape, jnp.bool_),
    }


def _check(spec: specs.SentenceEncoder, inputs: Inputs) -> None:
    shape = inputs["tokens"].shape
    for place, (tokens, mask) in enumerate(TEXTS):
        there = [name for name in (tokens, mask) if inputs.get(name) is not None]
        if not there:
            continue
        before = TEXTS[place - 1][0]
        if len(there) == 1 or (place and inputs.get(before) is None):
            raise ValueError(
                f"{there[0]} needs {tokens}, {mask} and the texts before it, got {sorted(inputs)}"
            )
        masked_lm.KIND.check(spec, {"tokens": inputs[tokens], "input_mask": inputs[mask]})
        if inputs[tokens].shape != shape:
            raise ValueError(
                f"{tokens} {inputs[tokens].shape} must have the shape of tokens, {shape}: pad the "
                "texts of a pair to one length"
            )
    if shape[1] > spec.text_length:
        raise ValueError(
            f"a text of {shape[1]} tokens leaves no room for the token before it; truncate it "
            f"to {spec.text_length}"
        )


KIND = Kind(_parts, _example, _check, check_queries=lambda spec, inputs: None, optional=_FURTHER)
