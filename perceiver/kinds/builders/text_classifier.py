"""The parts of a text classifier: a masked language model's encoder, another head."""

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.kinds import specs
from perceiver.kinds.builders import masked_lm
from perceiver.kinds.builders.parts import Inputs, Kind, Parts, backbone
from perceiver.nn.byte_array import ByteArray
from perceiver.nn.positions import LearnedTable
from perceiver.outputs.text_classes import TextClasses
from perceiver.text import tokenizer


def _parts(spec: specs.TextClassifier) -> Parts:
    _, inputs = masked_lm.text_inputs(spec, spec.embedding_channels)
    task_tokens = LearnedTable(
        size=len(spec.tasks),
        channels=spec.embedding_channels,
        scale=spec.embedding_scale,
        name="task_tokens",
    )
    head = TextClasses(
        tasks=spec.heads,
        own_queries=not spec.has_token,
        linear=spec.head == "linear",
        channels=spec.query_channels or spec.embedding_channels,
        heads=spec.query_heads,
        qk_channels=spec.query_qk_channels,
        query_residual=spec.query_residual,
        activation=spec.activation,
        compute=spec.decode_compute,
        name="outputs",
    )

    def preprocess(x: Inputs, *, is_training: bool) -> ByteArray:
        tokens, mask, first = x["tokens"], x["input_mask"], None
        if spec.has_token:
            tokens = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=tokenizer.CLS)
            mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        if "task" in x and _takes_task(spec):
            first = jnp.take(task_tokens(), x["task"], axis=0)  # [B, C]
        return inputs(tokens, mask, first=first)

    return Parts(
        preprocess=preprocess,
        body=backbone(spec, head),
        head=head,
        options=lambda x, byte_array: {
            "latent_mask": None if spec.has_latents else byte_array().mask
        },
    )


def _takes_task(spec: specs.TextClassifier) -> bool:
    """Whether it must be told which task is asked, as the answers to all are not the same pass."""
    return spec.has_token and spec.multitask == "task_tokens"


def _example(spec: specs.TextClassifier, batch_size: int):
    shape = (batch_size, spec.text_length)
    inputs = {
        "tokens": jax.ShapeDtypeStruct(shape, jnp.int32),
        "input_mask": jax.ShapeDtypeStruct(shape, jnp.bool_),
    }
    if _takes_task(spec):
        inputs["task"] = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    return inputs


def _check(spec: specs.TextClassifier, inputs: Inputs) -> None:
    masked_lm.KIND.check(spec, inputs)
    tokens = inputs["tokens"]
    if tokens.shape[1] > spec.text_length:
        raise ValueError(
            f"a text of {tokens.shape[1]} tokens leaves no room for the token before it; truncate "
            f"it to {spec.text_length}"
        )
    if not _takes_task(spec):
        return
    task = inputs["task"]
    if task.shape != (len(tokens),) or not jnp.issubdtype(task.dtype, jnp.integer):
        raise ValueError(f"task must be integers [{len(tokens)}], got {task.dtype} {task.shape}")
    if not isinstance(task, jax.core.Tracer):
        wrong = [int(i) for i in np.asarray(task) if not 0 <= i < len(spec.tasks)]
        if wrong:
            raise ValueError(
                f"task {wrong[0]} is not in 0..{len(spec.tasks) - 1}, the tasks {spec.tasks}"
            )


KIND = Kind(_parts, _example, _check, check_queries=lambda spec, inputs: None)
