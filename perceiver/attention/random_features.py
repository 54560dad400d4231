"""Random features: maps phi with E[phi(x) . phi(y)] = K(x, y) (Performer, 2009.14794, 2.3 and 2.4).

A map projects x [..., d] on m random directions w, each N(0, I) by itself, and takes a function of
each projection. The first three estimate the softmax kernel exp(x . y), the last a kernel of its
own (the arc-cosine kernel of order one), which is what the paper calls a Performer by default:

  positive       m^-1/2     exp(-|x|^2 / 2) exp(w . x)                 Lemma 1
  hyperbolic     (2m)^-1/2  exp(-|x|^2 / 2) (exp(w . x), exp(-w . x))  Lemma 1, twice the features
  trigonometric  m^-1/2     exp(+|x|^2 / 2) (sin(w . x), cos(w . x))   twice the features, signed
  relu           m^-1/2     max(w . x, 0)

Directions that are orthogonal to each other have less variance than independent ones (Theorem 2);
each alone is distributed as before, so there is no bias.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from perceiver.nn.products import product

NORMS = ("chi", "sqrt")


def directions(
    key: jax.Array, features: int, channels: int, *, orthogonal: bool = True, norms: str = "chi"
) -> jax.Array:
    """Draws directions, float32 [features, channels].

    Args:
      key: a random key.
      features: m. Beyond `channels` of them, blocks are stacked that are independent.
      channels: d.
      orthogonal: whether the directions of a block are; else all are independent.
      norms: "chi" draws lengths anew, as long as those of normal vectors; "sqrt" makes all
        sqrt(d) long, which estimates the paper's "regularised" softmax kernel instead (SMREG).
    """
    if norms not in NORMS:
        raise ValueError(f"norms={norms!r} is unknown; choose one of {', '.join(NORMS)}")
    of_blocks, of_norms = jax.random.split(key)
    if orthogonal:
        blocks = -(-features // channels)
        w = haar(of_blocks, blocks, channels).reshape(-1, channels)[:features]
    else:
        w = jax.random.normal(of_blocks, (features, channels))
        w = w / jnp.linalg.norm(w, axis=1, keepdims=True)
    if norms == "sqrt":
        return w * channels**0.5
    lengths = jnp.linalg.norm(jax.random.normal(of_norms, (features, channels)), axis=1)
    return w * lengths[:, None]


def haar(key: jax.Array, blocks: int, channels: int) -> jax.Array:
    """Draws orthogonal matrices evenly, float32 [blocks, channels, channels].

    Those of a QR decomposition are not evenly distributed before the signs of R's diagonal, which
    the algorithm happens to choose, are taken out (Mezzadri, math-ph/0609050).
    """
    q, r = jnp.linalg.qr(jax.random.normal(key, (blocks, channels, channels)))
    signs = jnp.where(jnp.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return q * signs[:, None, :]


class RandomFeatures(NamedTuple):
    """phi(x) = values exp(log_scale), without the factor m^-1/2 or (2m)^-1/2; float32.

    Kept apart, since exp(log_scale) overflows where x is long; attention uses ratios of it only.
    """

    values: jax.Array  # [..., width m], of size one (relu: of that of x)
    log_scale: jax.Array  # [..., 1], or the same for all elements [1, ..., 1]


class FeatureMap(NamedTuple):
    """What is made of projections."""

    of: Callable[[jax.Array, jax.Array], RandomFeatures]  # w . x [..., m], |x|^2 / 2 [..., 1]
    width: int  # features of a direction
    terms: int  # of a direction, that a product of features adds up: what it is divided by
    floor: float  # is added to each feature in attention, so that no query has weights of zero


def _positive(projected, half_square):
    # a constant that cancels, so it needs no derivative
    top = jax.lax.stop_gradient(projected.max(axis=-1, keepdims=True))
    return RandomFeatures(jnp.exp(projected - top), top - half_square)


def _hyperbolic(projected, half_square):
    return _positive(jnp.concatenate([projected, -projected], axis=-1), half_square)


def _trigonometric(projected, half_square):
    values = jnp.concatenate([jnp.sin(projected), jnp.cos(projected)], axis=-1)
    return RandomFeatures(values, half_square)


def _relu(projected, half_square):
    # one zero for all: XLA would take maxima of many at compile time
    return RandomFeatures(jnp.maximum(projected, 0.0), jnp.zeros((1,) * half_square.ndim))


MAPS = {
    "positive": FeatureMap(_positive, width=1, terms=1, floor=1e-6),
    "hyperbolic": FeatureMap(_hyperbolic, width=2, terms=2, floor=1e-6),
    "trigonometric": FeatureMap(
        _trigonometric, width=2, terms=1, floor=0.0
    ),  # signed: no floor helps
    "relu": FeatureMap(_relu, width=1, terms=1, floor=1e-3),
}


def features(kind: str, x: jax.Array, w: jax.Array, operands=jnp.float32) -> RandomFeatures:
    """Maps x [B, H, L, d] by directions w [m, d] to its features.

    Args:
      kind: one of MAPS.
      x: vectors, of any floating dtype.
      w: from `directions`.
      operands: the dtype that both are rounded to for their product.
    """
    x = x.astype(jnp.float32)
    projected = product("bhlc,mc->bhlm", x, w, operands)
    return MAPS[kind].of(projected, 0.5 * jnp.sum(x * x, axis=-1, keepdims=True))


def estimate(kind: str, x: jax.Array, y: jax.Array, w: jax.Array) -> jax.Array:
    """Estimates K(x, y) of each pair, [B, H, L, d] twice -> [B, H, L]."""
    a, b = (features(kind, each, w) for each in (x, y))
    scale = jnp.exp((a.log_scale + b.log_scale)[..., 0])
    return scale * jnp.sum(a.values * b.values, axis=-1) / (MAPS[kind].terms * len(w))


def mean_squared_error(kind: str, x: jax.Array, y: jax.Array, features: int) -> jax.Array:
    """Returns that of `estimate` with independent directions, [..., d] twice -> [...] (Lemma 2).

    Args:
      kind: "positive", "hyperbolic" or "trigonometric".
      x: vectors.
      y: as many others.
      features: m.
    """
    kernel = jnp.exp(jnp.sum(x * y, axis=-1))
    added, apart = (jnp.sum((x + sign * y) ** 2, axis=-1) for sign in (1, -1))
    if kind == "trigonometric":
        return jnp.exp(added) / kernel**2 * (1 - jnp.exp(-apart)) ** 2 / (2 * features)
    positive = jnp.exp(added) * kernel**2 * (1 - jnp.exp(-added)) / features
    return {"positive": positive, "hyperbolic": 0.5 * (1 - jnp.exp(-added)) * positive}[kind]
