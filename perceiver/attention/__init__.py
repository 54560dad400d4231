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

The kernels of `APPROXIMATE` keep to all of that but the values: they estimate the softmax, or put
another kernel in its place, by random features, and their cost is linear in Q and K (`favor`).
They drop no weights, and take two more keyword arguments,

    features      how many directions are drawn
    feature_key   a random key to draw them with; None for a fixed one

which `kernel` gives them. "auto" never chooses one: they are other models.

  favor_positive, favor_hyperbolic, favor_trigonometric   unbiased estimates of exp(q . k / sqrt(C))
  favor_relu                                              a kernel that is no softmax
"""

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import jax

from perceiver.attention import favor, fused, random_features, recompute, reference

AttendFn = Callable[..., jax.Array]

_FAVOR = {
    f"favor_{kind}": functools.partial(favor.attend, kind=kind) for kind in random_features.MAPS
}
KERNELS: dict[str, AttendFn] = {
    "reference": reference.attend,
    "recompute": recompute.attend,
    "cudnn": fused.attend,
    **_FAVOR,
}
APPROXIMATE = frozenset(_FAVOR)

logger = logging.getLogger(__name__)


class KernelChoice(NamedTuple):
    """What "auto" comes to."""

    kernel: str  # a key of KERNELS
    reason: str


def kernel(
    name: str, *, features: int = favor.FEATURES, feature_key: jax.Array | None = None
) -> AttendFn:
    """Returns the kernel of a name; ValueError lists the known ones.

    Args:
      name: "auto", or a key of KERNELS.
      features: directions of an approximate kernel; others have none.
      feature_key: what such a kernel draws them with.
    """
    if name == "auto":
        return _automatic
    if name not in KERNELS:
        known = ", ".join(sorted((*KERNELS, "auto")))
        raise ValueError(f"unknown attention kernel {name!r}; known: {known}")
    if name in APPROXIMATE:
        return functools.partial(KERNELS[name], features=features, feature_key=feature_key)
    return KERNELS[name]


def choose(
    q, k, v, *, masked: bool, drops: bool, operands: str, device: fused.Device | None = None
) -> KernelChoice:
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
        return KernelChoice("cudnn", "16-bit operands and narrow heads on an NVIDIA GPU")
    return KernelChoice("recompute", f"because cudnn {reason}")


def _automatic(q, k, v, *, key_mask=None, dropout_rate=0.0, operands="float32", **rest):
    choice = choose(q, k, v, masked=key_mask is not None, drops=dropout_rate > 0, operands=operands)
    logger.info("queries %s, keys %s: %s, %s", q.shape, k.shape, *choice)
    options = {"key_mask": key_mask, "dropout_rate": dropout_rate, "operands": operands}
    return KERNELS[choice.kernel](q, k, v, **options, **rest)
