"""The parts of a masked language model without latents."""

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.kinds import specs
from perceiver.kinds.builders import masked_lm
from perceiver.kinds.builders.parts import Inputs, Parts, transformer
from perceiver.outputs.text import TiedTokens


def _parts(spec: specs.MaskedLMTransformer) -> Parts:
    embedding, inputs = masked_lm.text_inputs(
        spec,
        spec.channels,
        token_types=spec.token_types,
        norm=spec.embedding_norm,
        epsilon=spec.norm_epsilon,
    )
    head = TiedTokens(
        embedding=embedding,
        transform=spec.head_transform,
        activation=spec.activation,
        epsilon=spec.norm_epsilon,
        compute=spec.compute,
        name="outputs",
    )
    return Parts(
        preprocess=lambda x, *, is_training: inputs(
            x["tokens"], x["input_mask"], types=x.get("token_types")
        ),
        body=transformer(spec, head),
        head=head,
        options=lambda x, byte_array: {},
    )


def _check(spec: specs.MaskedLMTransformer, inputs: Inputs) -> None:
    masked_lm.KIND.check(spec, inputs)
    types = inputs.get("token_types")
    if types is None:
        return
    shape = inputs["tokens"].shape
    if types.shape != shape or not jnp.issubdtype(types.dtype, jnp.integer):
        raise ValueError(
            f"token_types must be integers {shape} as tokens, got {types.dtype} {types.shape}"
        )
    if not spec.token_types:
        raise ValueError(
            "the model takes no token_types (its spec has token_types=0); leave them out"
        )
    if isinstance(types, jax.core.Tracer):
        return
    low, high = np.min(types, initial=0), np.max(types, initial=0)
    if low < 0 or high >= spec.token_types:
        raise ValueError(f"token_types {low}..{high} are outside 0..{spec.token_types - 1}")


KIND = masked_lm.KIND._replace(  # of the same inputs, and one more
    parts=_parts, check=_check, optional=("token_types",)
)
