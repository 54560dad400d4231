"""Softmax attention whose backward pass forms the weights anew (FlashAttention, 2205.14135, 3.1).

Forms all Q x K weights, as `reference` does, but keeps none of them: saved are the operands, the
result and one log-sum-exp per query. The backward pass holds scores with keys first, so that the
gradients of keys and values are plain products, and takes the softmax's own reduction from the
result: sum_k p_k dp_k = y . dy.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from perceiver.nn.products import in_order, operand_dtype, product

SAVED = ("attention_result", "attention_log_sum_exp")  # names for policies of `jax.checkpoint`


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
    dtype = operand_dtype(q, operands)
    q, k, v = (in_order(jnp.swapaxes(x, 1, 2)) for x in (q, k, v))  # [B, H, ., .]
    y = _attend((dtype, dropout_rate), q, k, v, key_mask, dropout_key)
    y = jnp.swapaxes(in_order(y), 1, 2)  # [B, Q, H, V]
    return y if query_mask is None else jnp.where(query_mask[:, :, None, None], y, 0.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how, q, k, v, key_mask, dropout_key):  # [B, H, Q, C] -> [B, H, Q, V]
    return _forward(how, q, k, v, key_mask, dropout_key)[0]


def _forward(how, q, k, v, key_mask, dropout_key):
    dtype, dropout_rate = how
    logits = product("bhqc,bhkc->bhqk", q, k, dtype) * q.shape[-1] ** -0.5
    real = None if key_mask is None else key_mask[:, None, None, :]  # [B, 1, 1, K]
    if real is not None:
        logits = jnp.where(real, logits, -jnp.inf)
    highest = logits.max(axis=-1, keepdims=True)
    if real is not None:
        sees = real.any(axis=-1, keepdims=True)
        highest = jnp.where(sees, highest, 0.0)
    exps = jnp.exp(logits - highest)
    total = exps.sum(axis=-1, keepdims=True)  # [B, H, Q, 1]
    if real is not None:
        total = jnp.where(sees, total, 1.0)  # no real key: 0 / 1
    kept = _drop(exps, dropout_rate, dropout_key)
    y = (product("bhqk,bhkv->bhqv", kept, v, dtype) / total).astype(v.dtype)
    y = checkpoint_name(y, SAVED[0])
    log_sum_exp = checkpoint_name((highest + jnp.log(total))[..., 0], SAVED[1])
    return y, (q, k, v, key_mask, dropout_key, y, log_sum_exp)


def _backward(how, saved, d_y):  # d_y [B, H, Q, V]
    dtype, dropout_rate = how
    q, k, v, key_mask, dropout_key, y, log_sum_exp = saved
    scale = q.shape[-1] ** -0.5
    logits = product("bhkc,bhqc->bhkq", k, q, dtype) * scale
    p = jnp.exp(logits - log_sum_exp[:, :, None])  # [B, H, K, Q]
    if key_mask is not None:
        p = jnp.where(key_mask[:, None, :, None], p, 0.0)
    p = jax.lax.optimization_barrier(p)  # else XLA forms it in each use
    kept = _drop(p, dropout_rate, dropout_key, keys_first=True)
    d_v = product("bhkq,bhqv->bhkv", kept, d_y, dtype)
    d_p = _drop(product("bhkv,bhqv->bhkq", v, d_y, dtype), dropout_rate, dropout_key, True)
    mean = jnp.einsum("bhqv,bhqv->bhq", y, d_y, preferred_element_type=jnp.float32)
    d_logits = jax.lax.optimization_barrier(p * (d_p - mean[:, :, None]) * scale)
    d_k = product("bhkq,bhqc->bhkc", d_logits, q, dtype)
    d_logits = in_order(jnp.swapaxes(d_logits.astype(dtype), 2, 3))
    d_q = product("bhqk,bhkc->bhqc", d_logits, k, dtype)
    return d_q.astype(q.dtype), d_k.astype(k.dtype), d_v.astype(v.dtype), None, None


def _drop(x, rate, key, keys_first=False):  # [B, H, Q, K], or [B, H, K, Q] with keys first
    if not rate:
        return x
    shape = (*x.shape[:2], x.shape[3], x.shape[2]) if keys_first else x.shape
    keep = jax.random.bernoulli(key, 1 - rate, shape)
    keep = jnp.swapaxes(keep, 2, 3) if keys_first else keep
    return jnp.where(keep, x / (1 - rate), 0.0)


_attend.defvjp(_forward, _backward)
