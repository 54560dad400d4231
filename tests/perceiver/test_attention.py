"""The reference kernel is the yardstick of every other one, so it is measured against a loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver import attention
from perceiver.attention import reference

F32_TOLERANCE = 2e-6
# bfloat16 keeps 8 bits: operands, weights and the result are each rounded by up to 2^-9 of values
# of size one
BF16_TOLERANCE = 4 * 2.0**-8
B, Q, K, H, C, V = 2, 3, 7, 5, 11, 13


def draw_qkv(rng, q=Q, k=K, h=H, c=C, v=V):
    shapes = (B, q, h, c), (B, k, h, c), (B, k, h, v)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


@pytest.fixture
def qkv(rng):
    return draw_qkv(rng)


def loop(q, k, v, key_mask=None, query_mask=None):
    """Attention as its definition, float64, one query of one head at a time."""
    y = np.zeros((*q.shape[:3], v.shape[-1]))
    for b, i, h in np.ndindex(*q.shape[:3]):
        keys = [j for j in range(k.shape[1]) if key_mask is None or key_mask[b, j]]
        if not keys or (query_mask is not None and not query_mask[b, i]):
            continue
        scores = [np.dot(q[b, i, h].astype(np.float64), k[b, j, h]) for j in keys]
        scores = np.array(scores) / np.sqrt(q.shape[-1])
        p = np.exp(scores - scores.max())
        y[b, i, h] = sum(w * v[b, j, h] for w, j in zip(p / p.sum(), keys, strict=True))
    return y


masks = st.sampled_from(["none", "some", "all hidden in one example"])


@settings(max_examples=15)  # each compiles its own shapes
@given(
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 5, 7])] * 5),
    key_masking=masks,
    query_masking=masks,
    seed=st.integers(0, 99),
)
def test_values_equal_the_loop(sizes, key_masking, query_masking, seed):
    rng = np.random.default_rng(seed)
    qkv = draw_qkv(rng, *sizes)

    def mask(how, length):
        if how == "none":
            return None
        drawn = rng.random((B, length)) < 0.6
        drawn[0] &= how == "some"
        return drawn

    masks = {"key_mask": mask(key_masking, sizes[1]), "query_mask": mask(query_masking, sizes[0])}
    y = jax.jit(reference.attend)(*qkv, **masks)
    np.testing.assert_allclose(y, loop(*qkv, **masks), atol=F32_TOLERANCE)


def test_large_logits_do_not_overflow(qkv):
    q, k, v = qkv
    y = reference.attend(100 * q, 100 * k, v)
    # logits of some 1e4 have been rounded by up to 1e-3, and the weights with them
    np.testing.assert_allclose(y, loop(100 * q, 100 * k, v), atol=1e-2)


def test_weights_are_those_of_the_definition(qkv):
    q, k, _ = qkv
    mask = np.array([[1, 0, 1, 1, 0, 1, 1], [0] * 7], bool)
    weights = reference.weights(q, k, key_mask=mask)
    assert weights.shape == (B, H, Q, K)
    np.testing.assert_allclose(weights[0].sum(-1), 1, atol=F32_TOLERANCE)
    assert not weights[0][..., ~mask[0]].any()
    assert not weights[1].any()
    one_hot = np.broadcast_to(np.eye(K, dtype=np.float32)[None, :, None], (B, K, H, K))
    through_values = reference.attend(q, k, one_hot, key_mask=mask)
    np.testing.assert_allclose(weights, np.moveaxis(through_values, 2, 1), atol=F32_TOLERANCE)


def test_a_key_mask_equals_removing_the_keys(qkv):
    q, k, v = qkv
    mask = np.array([True, False, True, True, False, False, True])
    masked = reference.attend(q, k, v, key_mask=np.broadcast_to(mask, (B, K)))
    removed = reference.attend(q, k[:, mask], v[:, mask])
    np.testing.assert_allclose(masked, removed, atol=F32_TOLERANCE)


def test_what_lies_under_the_key_mask_is_never_read(qkv):
    q, k, v = qkv
    mask = np.ones((B, K), bool)
    mask[:, 4] = False
    wild_k, wild_v = k.copy(), v.copy()
    wild_k[:, 4], wild_v[:, 4] = 1e4, -1e4
    np.testing.assert_array_equal(
        reference.attend(q, k, v, key_mask=mask), reference.attend(q, wild_k, wild_v, key_mask=mask)
    )


def test_a_query_mask_zeroes_its_rows_and_no_others(qkv):
    mask = np.array([[True, False, True], [False, True, True]])
    y, plain = reference.attend(*qkv, query_mask=mask), reference.attend(*qkv)
    assert not y[~mask].any()
    np.testing.assert_array_equal(y[mask], plain[mask])


def test_gradients_are_finite_and_zero_where_nothing_is_seen(qkv):
    key_mask = np.ones((B, K), bool)
    key_mask[1] = False  # the second example sees no key at all
    key_mask[0, 2] = False

    def total(q, k, v):
        return jnp.sum(reference.attend(q, k, v, key_mask=key_mask) ** 2)

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*qkv)
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert np.abs(gradient[0]).max() > 1e-3
        assert not gradient[1].any()
    for gradient in gradients[1:]:
        assert not gradient[0, 2].any()


def test_gradients_equal_finite_differences(qkv):
    mask = np.array([[1, 1, 0, 1, 1, 1, 1], [1, 0, 1, 1, 1, 0, 1]], bool)
    weight = np.random.default_rng(3).standard_normal((B, Q, H, V))

    def total(*qkv):
        return (weight * reference.attend(*qkv, key_mask=mask)).sum()

    rng = np.random.default_rng(5)
    for i, gradient in enumerate(jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*qkv)):
        direction = rng.standard_normal(qkv[i].shape)
        step = 1e-4
        ends = [
            (weight * loop(*qkv[:i], qkv[i] + s * direction, *qkv[i + 1 :], key_mask=mask)).sum()
            for s in (-step, step)
        ]
        slope = (ends[1] - ends[0]) / (2 * step)
        np.testing.assert_allclose(np.vdot(gradient, direction), slope, rtol=2e-4)


class TestDropout:
    attend = staticmethod(
        functools.partial(jax.jit, static_argnames="dropout_rate")(reference.attend)
    )

    def test_its_mean_is_the_undropped_result(self, qkv):
        rate, draws = 0.3, 3000
        keys = jax.random.split(jax.random.key(1), draws)
        samples = jax.lax.map(
            lambda key: reference.attend(*qkv, dropout_rate=rate, dropout_key=key), keys
        )
        plain = reference.attend(*qkv)
        deviation = samples.std(axis=0) / np.sqrt(draws)
        np.testing.assert_array_less(np.abs(samples.mean(axis=0) - plain), 5 * deviation + 1e-5)

    def test_it_drops_the_stated_fraction_of_weights(self, rng):
        q, k, _ = draw_qkv(rng, q=31, k=37, h=5)
        one_hot = np.broadcast_to(np.eye(37, dtype=np.float32)[None, :, None], (B, 37, 5, 37))
        y = self.attend(q, k, one_hot, dropout_rate=0.3, dropout_key=jax.random.key(2))
        assert abs((y == 0).mean() - 0.3) < 0.02
        weights = np.moveaxis(reference.weights(q, k), 1, 2)
        np.testing.assert_allclose(y[y > 0], (weights / 0.7)[y > 0], rtol=1e-5)

    def test_the_key_decides(self, qkv):
        first, again, other = (
            self.attend(*qkv, dropout_rate=0.5, dropout_key=jax.random.key(seed))
            for seed in (3, 3, 4)
        )
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


class TestBfloat16:
    def test_results_are_close_to_float32_and_of_v_dtype(self, qkv):
        low = [jnp.asarray(x, jnp.bfloat16) for x in qkv]
        y = reference.attend(*low)
        assert y.dtype == jnp.bfloat16
        exact = loop(*[np.asarray(x, np.float32) for x in low])
        np.testing.assert_allclose(np.asarray(y, np.float32), exact, atol=BF16_TOLERANCE)

    def test_softmax_is_in_float32(self, rng):
        # With 5,000 equal keys a bfloat16 sum would stall at 256; in float32 a weight is 1/5000.
        k = 5003
        q, key = jnp.zeros((1, 1, 1, 2), jnp.bfloat16), jnp.zeros((1, k, 1, 2), jnp.bfloat16)
        weights = reference.weights(q, key)
        assert weights.dtype == jnp.float32
        np.testing.assert_allclose(weights, 1 / k, rtol=1e-5)
        q, key, _ = (jnp.asarray(x, jnp.bfloat16) for x in draw_qkv(rng, k=101, c=31))
        exact = reference.weights(q.astype(jnp.float32), key.astype(jnp.float32))
        # the operands are equal numbers, so nothing but float32 rounding may differ
        np.testing.assert_allclose(reference.weights(q, key), exact, rtol=1e-5)


def test_kernels_are_found_by_name():
    assert attention.kernel("reference") is reference.attend
    with pytest.raises(ValueError, match=r"unknown attention kernel 'flash'; known: .*reference"):
        attention.kernel("flash")
