"""Losses of embeddings, per example and in float32 (Sentence-BERT, section 3).

As in `train.objective.losses`, nothing takes a mean. Embeddings are [B, E] arrays of any float
dtype.
"""

import jax
import jax.numpy as jnp

_SMALLEST = 1e-12  # squared lengths below this count as this: no direction, no gradient of 1 / 0


def cosine(u: jax.Array, v: jax.Array) -> jax.Array:  # [B, E], [B, E] -> f32 [B]
    """Cosine similarity of each row with its partner; 0 of an embedding that is all zeros."""
    return jnp.sum(unit(u) * unit(v), axis=-1)


def unit(x: jax.Array) -> jax.Array:  # [B, E] -> f32 [B, E]
    """Rows at length 1."""
    x = x.astype(jnp.float32)
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, _SMALLEST))


def cosine_error(u: jax.Array, v: jax.Array, scores: jax.Array) -> jax.Array:  # f32 [B]
    """Squared error of the cosine similarity against a score [B]."""
    return jnp.square(cosine(u, v) - scores.astype(jnp.float32))


def distance(u: jax.Array, v: jax.Array) -> jax.Array:  # [B, E], [B, E] -> f32 [B]
    """Euclidean distance, whose gradient at 0 is 0 here."""
    squared = jnp.sum(jnp.square(u.astype(jnp.float32) - v.astype(jnp.float32)), axis=-1)
    apart = squared > _SMALLEST
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def triplet(
    anchor: jax.Array, positive: jax.Array, negative: jax.Array, *, margin: float
) -> jax.Array:  # f32 [B]
    """max(|a - p| - |a - n| + margin, 0)."""
    return jax.nn.relu(distance(anchor, positive) - distance(anchor, negative) + margin)


def in_batch_scores(
    u: jax.Array,  # [B, E]
    v: jax.Array,  # [B, E]
    mask: jax.Array,  # bool [B], True: a real pair
    *,
    temperature: float,
) -> tuple[jax.Array, jax.Array]:  # f32 [B, B] twice
    """Logits of each u over all v, and of each v over all u; the right one has its own number.

    Rows that are no real pairs are nobody's wrong answer.
    """
    scores = unit(u) @ unit(v).T / temperature  # [B, B]
    lowest = jnp.finfo(jnp.float32).min / 2
    return tuple(jnp.where(mask[None], x, lowest) for x in (scores, scores.T))


def in_batch_negatives(
    u: jax.Array, v: jax.Array, mask: jax.Array, *, temperature: float
) -> jax.Array:  # f32 [B]
    """Cross-entropy of finding the own partner among those of the batch, the mean of both ways.

    Arguments as of `in_batch_scores`. What a row without a pair gets means nothing.
    """
    ways = in_batch_scores(u, v, mask, temperature=temperature)
    return sum(jax.nn.logsumexp(x, axis=-1) - jnp.diagonal(x) for x in ways) / 2
