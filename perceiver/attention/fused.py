"""cuDNN's flash attention, which never forms the weights (FlashAttention-2, 2307.08691).

It takes 16-bit operands and heads of one width, a multiple of 8 that the GPU's generation limits.
Other widths are padded with zeros, which change neither logits nor results: in masked language
models, 32-wide queries and keys to the 160 of the values.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from perceiver.nn.products import operand_dtype

_AMPERE, _HOPPER = 8.0, 9.0  # compute capabilities
_MULTIPLE = 8  # of every head's width


class Device(NamedTuple):
    """What the choice of a kernel depends on."""

    platform: str  # cpu, gpu, tpu
    capability: float | None  # of an NVIDIA GPU, 9.0 for Hopper; else None


def device() -> Device:
    """Returns JAX's default device."""
    first = jax.devices()[0]
    try:
        capability = float(getattr(first, "compute_capability", ""))
    except ValueError:  # no GPU, or AMD's, which name their architecture ("gfx90a")
        capability = None
    return Device(first.platform, capability)


def refusal(q, k, v, *, masked: bool, drops: bool, operands: str, device: Device) -> str | None:
    """Returns why cuDNN cannot serve such a call, to go on a sentence, or None if it can."""
    if device.capability is None:
        return f"needs an NVIDIA GPU, and this is a {device.platform}"
    if device.capability < _AMPERE:
        return f"needs compute capability {_AMPERE}, and this GPU has {device.capability}"
    dtype = jnp.dtype(operand_dtype(q, operands))
    if dtype.itemsize != 2:
        return f"needs 16-bit operands, not {dtype}; set operands='bfloat16'"
    if drops:
        return "cannot drop attention weights; set attention_dropout_rate=0"
    width, limit = _width(q, v), 256 if device.capability >= _HOPPER else 128
    if width > limit:
        return f"takes heads of at most {limit} channels on this GPU, not {width}"
    if masked and (q.shape[1] % 2 or k.shape[1] % 2):
        return (
            "takes a key mask with even numbers of queries and keys only, not with "
            f"{q.shape[1]} and {k.shape[1]}"
        )
    return None


def attend(
    q,
    k,
    v,
    *,
    key_mask=None,
    query_mask=None,
    dropout_rate=0.0,
    dropout_key=None,
    operands="float32",
) -> jax.Array:
    """Attends, [B, Q, H, C] -> [B, Q, H, V]; the contract is in `perceiver.attention`.

    Raises:
      ValueError: cuDNN cannot serve; says why.
    """
    del dropout_key  # it drops nothing
    masked, drops = key_mask is not None, dropout_rate > 0
    reason = refusal(q, k, v, masked=masked, drops=drops, operands=operands, device=device())
    if reason is not None:
        raise ValueError(
            f"attention kernel 'cudnn' cannot attend from {q.dtype} queries {q.shape} to keys "
            f"{k.shape} and values {v.shape}: it {reason}; or use kernel='auto'"
        )
    y = padded(q, k, v, key_mask, operand_dtype(q, operands), implementation="cudnn")
    return y if query_mask is None else jnp.where(query_mask[:, :, None, None], y, 0)


def padded(q, k, v, key_mask, dtype, *, implementation: str) -> jax.Array:
    """Calls `jax.nn.dot_product_attention` on heads padded to one width and cast to `dtype`."""
    width, result = _width(q, v), v.dtype

    def pad(x):
        unused = width - x.shape[-1]
        return jnp.pad(x.astype(dtype), [(0, 0)] * 3 + [(0, unused)])

    mask = None
    if key_mask is not None:
        shape = (q.shape[0], 1, q.shape[1], k.shape[1])
        mask = jnp.broadcast_to(key_mask[:, None, None, :], shape)
    scale = q.shape[-1] ** -0.5  # of the width before padding
    y = jax.nn.dot_product_attention(
        pad(q), pad(k), pad(v), mask=mask, scale=scale, implementation=implementation
    )
    y = y[..., : v.shape[-1]].astype(result)
    if key_mask is None:
        return y
    # Under a mask that hides all keys, cuDNN's weights are even.
    return jnp.where(key_mask.any(axis=1)[:, None, None, None], y, 0)


def _width(q, v) -> int:
    return -(-max(q.shape[-1], v.shape[-1]) // _MULTIPLE) * _MULTIPLE
