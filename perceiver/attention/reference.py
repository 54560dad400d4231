"""Softmax attention written down plainly: forms all Q x K weights, defines what is correct."""

import jax
import jax.numpy as jnp

from perceiver.nn.products import operand_dtype


def weights(
    q, k, *, key_mask=None
) -> jax.Array:  # [B, Q, H, C], [B, K, H, C], [B, K] -> f32 [B, H, Q, K]
    """Returns the attention weights; a row sums to 1, or is all zero where no key is real."""
    logits = jnp.einsum("bqhc,bkhc->bhqk", q, k, preferred_element_type=jnp.float32)
    logits = logits * (q.shape[-1] ** -0.5)
    if key_mask is None:
        return jax.nn.softmax(logits, axis=-1)
    real = key_mask[:, None, None, :]  # [B, 1, 1, K]
    logits = jnp.where(real, logits, -jnp.inf)
    sees = real.any(axis=-1, keepdims=True)
    highest = jnp.where(sees, logits.max(axis=-1, keepdims=True), 0.0)
    exps = jnp.exp(logits - jax.lax.stop_gradient(highest))
    return exps / jnp.where(sees, exps.sum(axis=-1, keepdims=True), 1.0)


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
    """Attends, [B, Q, H, C] -> [B, Q, H, V]; the contract is in `perceiver.attention`."""
    dtype, result = operand_dtype(q, operands), v.dtype
    q, k, v = (x.astype(dtype) for x in (q, k, v))
    p = weights(q, k, key_mask=key_mask)  # [B, H, Q, K]
    if dropout_rate > 0:
        keep = jax.random.bernoulli(dropout_key, 1 - dropout_rate, p.shape)
        p = jnp.where(keep, p / (1 - dropout_rate), 0.0)
    y = jnp.einsum("bhqk,bkhv->bqhv", p.astype(dtype), v, preferred_element_type=jnp.float32)
    if query_mask is not None:
        y = jnp.where(query_mask[:, :, None, None], y, 0.0)
    return y.astype(result)
