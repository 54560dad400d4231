"""A cross-attend of any shape, as encoder or decoder: dense or along a path, differentiated or not.

An encoder's latents read a byte array. A decoder's queries are a byte array, without residual, that
reads latents (optical flow).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
from perceiver.byte_array import ByteArray
from perceiver.compute import Compute
from perceiver.cross_attend import CrossAttend
from perceiver.decoder import Decoder

from benchmarks import dense, draw
from benchmarks.forms import DENSE, Form

# (params, latents [B, N, D], byte array) -> [B, N, D], or [B, O, OUT_CHANNELS] of a decoder
Block = Callable[[dense.Params, jax.Array, ByteArray], jax.Array]

WORKS = ("forward", "gradient", "gradient + content")
OUT_CHANNELS = 2  # of a decoder's last layer: flow to the right and down


def make(kind: str, form: Form) -> Block:
    """Returns an "encoder" or "decoder" in a form; all forms take the same parameters."""
    if form == DENSE:
        return {"encoder": _dense_encoder, "decoder": _dense_decoder}[kind]
    apply = _transform(kind, Compute(path=form.name, operands=form.dtype)).apply
    return lambda params, latents, byte_array: apply(params, None, latents, byte_array)


def draw_params(kind: str, latents: jax.Array, byte_array: ByteArray) -> dense.Params:
    """Draws the parameters that such a block asks for."""
    init = _transform(kind, Compute()).init
    return draw.params(jax.eval_shape(init, jax.random.key(0), latents, byte_array))


def working(block: Block, work: str) -> Callable[..., Any]:
    """Returns f(params, latents, byte_array, cotangent) that does one of `WORKS` with a block.

    A gradient is that of <outputs, cotangent>, and comes with the outputs: by the parameters and
    latents, as in training where nobody asks for that of the inputs, or by their content too.
    """
    if work == "forward":
        return lambda params, latents, byte_array, cotangent: block(params, latents, byte_array)

    def loss(wanted, byte_array, cotangent):
        params, latents, *content = wanted
        segments = byte_array.segments
        if content:
            pairs = zip(segments, *content, strict=True)
            segments = tuple(dataclasses.replace(s, content=x) for s, x in pairs)
        outputs = block(params, latents, ByteArray(segments))
        return jnp.vdot(outputs, cotangent), outputs

    def gradient(params, latents, byte_array, cotangent):
        content = tuple(segment.content for segment in byte_array.segments)
        wanted = (params, latents, content) if work == "gradient + content" else (params, latents)
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        (_, outputs), gradients = value_and_grad(wanted, byte_array, cotangent)
        return outputs, gradients

    return gradient


def _dense_encoder(params, latents, byte_array):
    return dense.cross_attend(params, "cross_attend", latents, byte_array.dense(), heads=1)


def _dense_decoder(params, latents, queries):
    how = {"heads": 1, "query_residual": False}
    return dense.decode(params, "decoder", queries.dense(), latents, **how)


def _transform(kind: str, compute: Compute) -> hk.Transformed:
    def encoder(latents, byte_array):
        return CrossAttend(heads=1, compute=compute, name="cross_attend")(latents, byte_array)

    def decoder(latents, queries):
        how = {"query_residual": False, "out_channels": OUT_CHANNELS, "compute": compute}
        return Decoder(heads=1, name="decoder", **how)(queries, latents)

    return hk.transform({"encoder": encoder, "decoder": decoder}[kind])
