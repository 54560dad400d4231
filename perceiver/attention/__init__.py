"""Attention kernels: one contract, one table.

An `AttendFn` maps

    q [B, Q, H, C], k [B, K, H, C], v [B, K, H, V]  ->  [B, Q, H, V]

by softmax(q k^T / sqrt(C)) v for each of H heads, with keyword arguments

    key_mask      [B, K] bool or None; keys with False get no weight
    query_mask    [B, Q] bool or None; queries with False give zeros
    dropout_rate  fraction of weights to drop, 0 outside training
    dropout_key   a random key when dropout_rate > 0, else None
    operands      "float32" or "bfloat16", which float32 operands of products are rounded to

Softmax is in float32 whatever the operands. A query that sees no key at all gives zeros, never
NaN. The result has v's dtype. `reference` defines the values; another kernel must equal it, or
refuse loudly.

  reference  written down plainly; the derivative is JAX's own and keeps the weights
  recompute  forms the weights anew in the backward pass, in products that XLA runs fast
  cudnn      flash attention on NVIDIA GPUs, which never forms them: 16-bit, narrow heads
  auto       cudnn where it serves, else recompute; `choose` says which, and so does the log
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import jax

from perceiver.attention import fused, recompute, reference

AttendFn = Callable[..., jax.Array]

KERNELS: dict[str, AttendFn] = {
    "reference": reference.attend,
    "recompute": recompute.attend,
    "cudnn": fused.attend,
}

logger = logging.getLogger(__name__)


class Choice(NamedTuple):
    """What "auto" comes to."""

    kernel: str  # a key of KERNELS
    reason: str


def kernel(name: str) -> AttendFn:
    """Returns the kernel of a name; ValueError lists the known ones."""
    if name == "auto":
        return _automatic
    if name not in KERNELS:
        known = ", ".join(sorted((*KERNELS, "auto")))
        raise ValueError(f"unknown attention kernel {name!r}; known: {known}")
    return KERNELS[name]


def choose(
    q, k, v, *, masked: bool, drops: bool, operands: str, device: fused.Device | None = None
) -> Choice:
    """Returns the kernel that "auto" takes, and why.

    Args:
      q: queries, of which like of keys and values only shape and dtype matter.
      k: keys.
      v: values.
      masked: whether there is a key mask.
      drops: whether attention weights are dropped out.
      operands: as in the contract above.
      device: what to run on; None for JAX's default.
    """
    reason = fused.refusal(
        q, k, v, masked=masked, drops=drops, operands=operands, device=device or fused.device()
    )
    if reason is None:
        return Choice("cudnn", "16-bit operands and narrow heads on an NVIDIA GPU")
    return Choice("recompute", f"because cudnn {reason}")


def _automatic(q, k, v, *, key_mask=None, dropout_rate=0.0, operands="float32", **rest):
    choice = choose(q, k, v, masked=key_mask is not None, drops=dropout_rate > 0, operands=operands)
    logger.info("queries %s, keys %s: %s, %s", q.shape, k.shape, *choice)
    options = {"key_mask": key_mask, "dropout_rate": dropout_rate, "operands": operands}
    return KERNELS[choice.kernel](q, k, v, **options, **rest)
