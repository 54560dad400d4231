"""FAVOR+: attention by random features, linear in length (Performer, 2009.14794, 2.1, appendix B).

With phi(q) . phi(k) for the kernel exp(q . k / sqrt(C)) of a softmax, the weights need not be
formed: first the sums over keys, then a product with each query,

    y = phi(q) S / (phi(q) z)    S = sum_k phi(k) v^T [F, V]    z = sum_k phi(k) [F]

with F features in all (a column of ones beside the values gives z). An estimate, not a way to
compute the softmax; `relu` does not even estimate that, and is trained from the start or tuned.

What keeps it finite: features are known up to a factor, exp(log_scale), that for a query cancels,
and for keys only matters relative to the largest one of the real keys. The floor that is then added
is the paper's, 1e-6 (relu 1e-3): it bounds how small a weight can be. Trigonometric features may
give weights below zero and sums near it; they are here to be compared with.
"""

import jax
import jax.numpy as jnp

from perceiver.attention import random_features
from perceiver.attention.random_features import MAPS, RandomFeatures
from perceiver.nn.products import in_order, operand_dtype, product

FEATURES = 256  # directions (appendix A)
MASKED = -1e30  # finite, so that a row of masked keys gives no NaN
CHUNK = 128  # elements that a causal step handles at a time


def attend(
    q,
    k,
    v,
    *,
    kind: str,
    key_mask=None,
    query_mask=None,
    dropout_rate=0.0,
    dropout_key=None,
    operands="float32",
    features: int = FEATURES,
    feature_key=None,
) -> jax.Array:
    """Attends, [B, Q, H, C] -> [B, Q, H, V]; the contract is in `perceiver.attention`.

    Args beside those of the contract:
      kind: one of random_features.MAPS.
      features: directions that are drawn, the same for all heads and examples.
      feature_key: a random key; None for a fixed one.

    Raises:
      ValueError: attention weights are to be dropped.
    """
    del dropout_key
    if dropout_rate:
        raise ValueError(
            f"attention kernel 'favor_{kind}' never forms the attention weights, so it cannot drop "
            f"{dropout_rate} of them; set attention_dropout_rate=0"
        )
    w = draw(feature_key, features, q.shape[-1])
    return attend_by(
        w, q, k, v, kind=kind, key_mask=key_mask, query_mask=query_mask, operands=operands
    )


def draw(feature_key, features: int, channels: int) -> jax.Array:
    """Draws orthogonal directions [features, channels]; without a key, the same in all programs."""
    if feature_key is None:
        feature_key = jax.random.key(0, impl="threefry2x32")  # whatever JAX's default is set to
    return random_features.directions(feature_key, features, channels)


def attend_by(
    w, q, k, v, *, kind: str, key_mask=None, query_mask=None, operands="float32"
) -> jax.Array:
    """Attends by given directions w [m, C], as `attend` does by drawn ones."""
    dtype = operand_dtype(q, operands)
    real = None if key_mask is None else key_mask[:, None, :, None]  # [B, 1, K, 1]
    of_q, of_k = (_features(kind, x, w, dtype) for x in (q, k))
    keys = _keys(of_k, MAPS[kind].floor, real)  # [B, H, K, F]
    sums = product("bhkf,bhkv->bhfv", keys, _with_ones(v), dtype)  # [B, H, F, V + 1]
    y = product("bhqf,bhfv->bhqv", of_q.values + MAPS[kind].floor, sums, dtype)
    return _finish(y, query_mask, v.dtype)


def attend_causal(
    q,
    k,
    v,
    *,
    kind: str,
    key_mask=None,
    query_mask=None,
    operands="float32",
    features: int = FEATURES,
    feature_key=None,
    chunk: int = CHUNK,
) -> jax.Array:
    """Attends from each element to itself and those before it, [B, L, H, C] -> [B, L, H, V].

    Element i gets what `attend` would give it if the keys ended with i. In particular the factor
    that keeps features finite is that of the largest key up to i, so that nothing of later keys
    leaks by way of the floor, as it does where the maximum is taken over all.

    One chunk after another: quadratic within it, running sums before it (appendix B.1). Nothing is
    held for all elements but arguments, result, and for the backward pass the sums, [F, V + 1]
    for each chunk, of which the rest is computed again.

    Args beside those of `attend`:
      chunk: elements that a step handles.
    """
    length, dtype = q.shape[1], operand_dtype(q, operands)
    w = draw(feature_key, features, q.shape[-1])
    real = jnp.ones(q.shape[:2], bool) if key_mask is None else key_mask
    chunk = min(chunk, length)
    parts = [_chunks(x, chunk) for x in (q, k, v, real)]  # [n, B, W, ...]; what is added is masked

    def step(carry, part):
        return _causal_step(carry, *part, kind=kind, w=w, dtype=dtype)

    batch, _, heads, _ = q.shape
    width = MAPS[kind].width * len(w)
    start = (
        jnp.zeros((batch, heads, width, v.shape[-1] + 1)),
        jnp.zeros((batch, heads, 1, v.shape[-1] + 1)),
        jnp.full((batch, heads, 1, 1), MASKED),
    )
    _, y = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), start, tuple(parts))
    y = jnp.moveaxis(y, 0, 2).reshape(batch, heads, -1, y.shape[-1])[:, :, :length]
    return _finish(y, query_mask, v.dtype)


def _causal_step(carry, q, k, v, real, *, kind, w, dtype):
    """Takes up a chunk of W elements and returns their sums [B, H, W, V + 1].

    Carried are of all keys before: sum of values exp(log_scale - top) v^T [B, H, F, V + 1]; sum of
    v [B, H, 1, V + 1], which is what the floor multiplies; and top [B, H, 1, 1], the largest
    log_scale.
    """
    sums, plain, top = carry
    of_q, of_k = (_features(kind, x, w, dtype) for x in (q, k))
    queries = of_q.values + MAPS[kind].floor
    floor = MAPS[kind].floor * queries.sum(axis=-1, keepdims=True)  # [B, H, W, 1], of every key
    v, real = _with_ones(v), real[:, None, :, None]  # [B, 1, W, 1]
    scale = jnp.where(real, of_k.log_scale, MASKED)  # [B, H, W, 1]
    tops = jax.lax.cummax(jax.lax.stop_gradient(scale), axis=2)
    tops = jnp.maximum(top, tops)  # up to each element

    y = product("bhqf,bhfv->bhqv", queries, sums, dtype) * jnp.exp(top - tops) + floor * plain
    seen = jnp.tri(q.shape[1], dtype=bool)[None, None] & jnp.swapaxes(real, 2, 3)  # [B, 1, W, W]
    # at most 0 where a key is seen, elsewhere anything: masked before it can overflow
    above = jnp.where(seen, jnp.swapaxes(scale, 2, 3) - tops, MASKED)
    weights = product("bhqf,bhkf->bhqk", queries, of_k.values, dtype) * jnp.exp(above) + floor
    y = y + product("bhqk,bhkv->bhqv", jnp.where(seen, weights, 0.0), v, dtype)

    last = tops[:, :, -1:]
    keys = jnp.where(real, of_k.values * jnp.exp(scale - last), 0.0)
    sums = sums * jnp.exp(top - last) + product("bhkf,bhkv->bhfv", keys, v, dtype)
    plain = plain + jnp.where(real, v, 0.0).sum(axis=2, keepdims=True)
    return (sums, plain, last), y


def _features(kind, x, w, dtype) -> RandomFeatures:  # [B, L, H, C] -> of [B, H, L, C]
    x = in_order(jnp.swapaxes(x, 1, 2)).astype(jnp.float32)
    return random_features.features(kind, x * x.shape[-1] ** -0.25, w, dtype)


def _keys(of_k: RandomFeatures, floor: float, real) -> jax.Array:
    """Returns features of keys relative to the largest real one; zero for masked keys."""
    scale = of_k.log_scale  # [B, H, K, 1]
    if real is not None:  # before the exponential: what lies under the mask may be of any size
        scale = jnp.where(real, scale, MASKED)
    top = jax.lax.stop_gradient(scale.max(axis=2, keepdims=True))
    keys = of_k.values * jnp.exp(scale - top) + floor
    return keys if real is None else jnp.where(real, keys, 0.0)


def _with_ones(v) -> jax.Array:  # [B, K, H, V] -> f32 [B, H, K, V + 1]
    v = jnp.swapaxes(v, 1, 2).astype(jnp.float32)
    return in_order(jnp.concatenate([v, jnp.ones((*v.shape[:3], 1))], axis=-1))


def _finish(y, query_mask, dtype) -> jax.Array:  # [B, H, Q, V + 1] -> [B, Q, H, V]
    y = jnp.swapaxes(in_order(y), 1, 2)
    total = y[..., -1:]
    empty = total == 0  # no real key
    y = jnp.where(empty, 0.0, y[..., :-1] / jnp.where(empty, 1.0, total))
    if query_mask is not None:
        y = jnp.where(query_mask[:, :, None, None], y, 0.0)
    return y.astype(dtype)


def _chunks(x, size: int) -> jax.Array:  # [B, L, ...] -> [L / size, B, size, ...], zeros added
    missing = -x.shape[1] % size
    x = jnp.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)
