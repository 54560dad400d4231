"""Merges attention to parts of the inputs, exactly, by their log-sum-exps.

A part is (y [B, N, H, V], lse [B, N, H]): softmax attention within the part, and the logarithm of
the sum of its exponentiated logits. A query that saw nothing in a part has lse `NOTHING` there.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

NOTHING = -1e30  # finite: differences of it are 0, not NaN

PartialSoftmax = tuple[jax.Array, jax.Array]  # y [B, N, H, V], lse [B, N, H]


def zeros_where_nothing(y: jax.Array, lse: jax.Array) -> jax.Array:
    """Returns y [..., V] with zeros for queries that saw nothing; NaN stays NaN."""
    return jnp.where((lse == NOTHING)[..., None], 0.0, y)


def whole_share(lse: jax.Array) -> jax.Array:  # [...] -> [..., 1]
    """Returns the sum of a query's weights, which is 1, or NaN where the query met NaN.

    What all elements add alike is multiplied by it, so that its gradient is as on the plain path.
    """
    return 1 + 0 * lse[..., None]


def merge(parts: Sequence[PartialSoftmax]) -> PartialSoftmax:
    """Returns attention to the union of the parts."""
    if len(parts) == 1:
        return parts[0]
    lses = jnp.stack([lse for _, lse in parts])
    total = jax.nn.logsumexp(lses, axis=0)
    shares = jnp.exp(lses - total[None])
    y = sum(share[..., None] * y for share, (y, _) in zip(shares, parts, strict=True))
    return y, total


def merge_across(part: PartialSoftmax, axis_name: str) -> PartialSoftmax:
    """Merges the parts of all devices along a mesh axis; for use inside `jax.shard_map`."""
    y, lse = part
    top = jax.lax.pmax(jax.lax.stop_gradient(lse), axis_name)
    share = jnp.exp(lse - top)
    total = jax.lax.psum(share, axis_name)
    y = jax.lax.psum(share[..., None] * y, axis_name) / total[..., None]
    return y, top + jnp.log(total)
