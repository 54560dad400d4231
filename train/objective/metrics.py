"""Metrics as pairs (sum, weight), added wherever they are made and divided once at the end.

The mean over an evaluation split then counts each example once, whatever the batch size, the
padding of the last batch and the number of devices. A set of metrics is `{name: (sum, weight)}`.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from train.objective import losses

Sums = Mapping[str, tuple[Any, Any]]  # name -> (sum, weight): scalars of Python, numpy or JAX


def top_k(
    logits: jax.Array,  # [..., K]
    labels: jax.Array,  # int [...]
    mask: jax.Array,  # bool [...]
    *,
    k: int = 1,
) -> tuple[jax.Array, jax.Array]:  # f32[], f32[]
    """Counts the examples whose label is among the k highest logits.

    Ties go to the lower class, as in argmax: a model that gives every class the same score is right
    about class 0 only. A NaN ranks above every number, and a NaN label score is never right.

    Raises:
        ValueError: If k is not in 1..K, or the shapes do not fit.
    """
    classes = logits.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(f"top-{k} accuracy of {classes} classes: k must be in 1..{classes}")
    own = losses.pick(logits, labels)[..., None]  # [..., 1]
    # Not `logits > own`: NaN must count as ahead.
    is_ahead = ~(logits <= own)  # [..., K]
    is_earlier_tie = (logits == own) & (_class_ids(logits) < labels[..., None])
    rank = jnp.sum(is_ahead | is_earlier_tie, axis=-1)  # [...]
    is_right = (rank < k) & ~jnp.isnan(own[..., 0])
    return losses.masked_sum(is_right, mask)


def _class_ids(logits: jax.Array) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)


def to_bits(nats: Any) -> Any:
    """Converts nats, a number or an array, to bits."""
    return nats / math.log(2)


def add(a: Sums, b: Sums) -> dict[str, tuple[Any, Any]]:
    """Adds two sets of metrics, on the device or on the host.

    Raises:
        ValueError: If their names differ.
    """
    if a.keys() != b.keys():
        raise ValueError(
            f"metrics to add must have the same names; only one side has {sorted(a.keys() ^ b)}"
        )
    return {name: (a[name][0] + b[name][0], a[name][1] + b[name][1]) for name in a}


def total(stream: Iterable[Sums]) -> dict[str, tuple[float, float]]:
    """Adds up the metrics of many batches on the host, in float64.

    Float32 would stop counting at 2^24 examples, and lose digits of a sum long before.

    Args:
        stream: Metrics of each batch, perhaps still being computed. A batch is read back only when
            the next one has been asked for, so that the device never waits for the host.

    Returns:
        Python floats; an empty dict for an empty stream.
    """
    totals: dict[str, tuple[float, float]] = {}
    pending = None
    for sums in itertools.chain(stream, [None]):
        if pending is not None:
            fetched = {
                name: (float(s), float(w)) for name, (s, w) in jax.device_get(dict(pending)).items()
            }
            totals = add(totals, fetched) if totals else fetched
        pending = sums
    return totals


def means(sums: Sums) -> dict[str, float]:
    """Divides each sum by its weight.

    A metric that nothing counted towards (weight 0) has no mean and is left out, as NaN would be
    neither a measurement nor JSON. Who needs a metric to be there asks for it by name.
    """
    fetched = jax.device_get(dict(sums))
    return {name: float(s) / float(w) for name, (s, w) in fetched.items() if w != 0}
