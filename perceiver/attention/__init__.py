"""Attention kernels: one contract, one table.

An `AttendFn` maps

    q [B, Q, H, C], k [B, K, H, C], v [B, K, H, V]  ->  [B, Q, H, V]

by softmax(q k^T / sqrt(C)) v for each of H heads, with keyword arguments

    key_mask      [B, K] bool or None; keys with False get no weight
    query_mask    [B, Q] bool or None; queries with False give zeros
    dropout_rate  fraction of weights to drop, 0 outside training
    dropout_key   a random key when dropout_rate > 0, else None

Softmax is in float32 whatever the operands. A query that sees no key at all gives zeros, never
NaN. The result has v's dtype. `reference` defines the values; another kernel must equal it, or
refuse loudly.
"""

from collections.abc import Callable

import jax

from perceiver.attention import reference

AttendFn = Callable[..., jax.Array]

KERNELS: dict[str, AttendFn] = {"reference": reference.attend}


def kernel(name: str) -> AttendFn:
    """Returns the kernel of a name; ValueError lists the known ones."""
    if name not in KERNELS:
        raise ValueError(f"unknown attention kernel {name!r}; known: {', '.join(sorted(KERNELS))}")
    return KERNELS[name]
