"""FAVOR+ against its quadratic form: the same features, all weights written down."""

import dataclasses
import functools
import re

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver
from perceiver import attention
from perceiver.attention import favor, random_features, reference
from perceiver.attention.blocks import SelfAttend
from perceiver.attention.random_features import MAPS
from perceiver.nn.compute import Compute
from perceiver.summary import flops

B, Q, K, H, C, V, M = 2, 5, 13, 3, 7, 11, 17
TOLERANCE = 2e-5  # float32, sums of some hundred products in another order
KINDS = tuple(MAPS)
SIGNED = "trigonometric"  # whose weights may cancel


def draw(rng, q=Q, k=K):
    shapes = (B, q, H, C), (B, k, H, C), (B, k, H, V)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def of_features(kind, w, q, k):  # -> features of both, [B, H, L, .]
    return tuple(
        random_features.features(kind, jnp.swapaxes(x, 1, 2) * C**-0.25, w) for x in (q, k)
    )


def quadratic(kind, w, q, k, v, key_mask):
    """Attention as its definition: all weights, in plain JAX, with derivatives of its own."""
    of_q, of_k = of_features(kind, w, q, k)
    floor, real = MAPS[kind].floor, key_mask[:, None, :, None]
    top = jnp.where(real, of_k.log_scale, -jnp.inf).max(axis=2, keepdims=True)
    keys = of_k.values * jnp.exp(of_k.log_scale - jax.lax.stop_gradient(top)) + floor
    p = jnp.einsum("bhqf,bhkf->bhqk", of_q.values + floor, jnp.where(real, keys, 0.0))
    return jnp.einsum("bhqk,bkhv->bqhv", p / p.sum(axis=-1, keepdims=True), v)


def loop(kind, w, q, k, v, seen, shift=0.0):
    """The same in float64, one query at a time, of those keys that it sees [B, Q, K]."""
    of_q, of_k = (
        [np.asarray(x, np.float64) for x in found]
        for found in jax.jit(of_features, static_argnums=0)(kind, w, q, k)
    )
    of_k[1] = np.broadcast_to(of_k[1], (*of_k[0].shape[:3], 1))
    y, floor = np.zeros((*q.shape[:3], V)), MAPS[kind].floor
    for b, h, i in np.ndindex(B, H, q.shape[1]):
        keys = seen[b, i]
        if keys.any():
            values, scale = of_k[0][b, h][keys], of_k[1][b, h][keys]
            phi = values * np.exp(scale - scale.max() + shift) + floor
            p = phi @ (of_q[0][b, h, i] + floor)
            y[b, i, h] = p @ v[b, keys, h] / p.sum()
    return y


def assert_close(y, truth, kind=""):
    # signed weights may cancel, and leave the rounding of larger ones
    scale = max(np.abs(truth).max(), 1) * (10 if kind == SIGNED else 1)
    np.testing.assert_allclose(y, truth, rtol=0, atol=TOLERANCE * scale)


def test_the_table_marks_them():
    assert {f"favor_{kind}" for kind in KINDS} == attention.APPROXIMATE
    assert attention.KERNELS.keys() > attention.APPROXIMATE


@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_values(kind, rng):
    q, k, v = draw(rng)
    mask = rng.random((B, K)) < 0.7
    mask[0] = False  # nothing to see for one example
    queries = np.arange(Q)[None] % 2 == np.arange(B)[:, None]
    wild_k, wild_v = (
        np.where(mask[..., None, None], k, 300.0),
        np.where(mask[..., None, None], v, 9e3),
    )
    wild_k, wild_v = wild_k.astype(np.float32), wild_v.astype(np.float32)
    attend = attention.kernel(f"favor_{kind}", features=M)

    @jax.jit
    def run(k, v):
        def total(k):
            y = attend(q, k, v, key_mask=mask, query_mask=queries)
            return y.sum(), y

        return jax.grad(total, has_aux=True)(k)

    gradient, y = run(wild_k, wild_v)
    seen = mask[:, None] & queries[..., None]
    assert_close(y, loop(kind, favor.draw(None, M, C), q, k, v, seen), kind)
    assert not y[0].any()
    assert np.isfinite(gradient).all()
    assert not gradient[~mask].any()


@pytest.mark.parametrize("kind", ["positive", "trigonometric"])
def test_gradients_are_those_of_the_quadratic_form(kind, rng):
    q, k, v = draw(rng)
    mask = rng.random((B, K)) < 0.7
    weights = rng.standard_normal((B, Q, H, V)).astype(np.float32)
    w = favor.draw(None, M, C)
    ours = functools.partial(favor.attend_by, kind=kind)
    theirs = functools.partial(quadratic, kind)

    def gradients(attend):
        return jax.jit(
            jax.grad(
                lambda *qkv: (weights * attend(w, *qkv, key_mask=mask)).sum(), argnums=(0, 1, 2)
            )
        )(q, k, v)

    for a, b in zip(gradients(ours), gradients(theirs), strict=True):
        assert_close(a, b, kind)


def test_more_features_come_closer_to_the_softmax(rng):
    q, k, v = (0.3 * x for x in draw(rng, q=29, k=31))
    truth = reference.attend(q, k, v)

    @functools.partial(jax.jit, static_argnums=0)
    def error(features, key):
        y = favor.attend(q, k, v, kind="positive", features=features, feature_key=key)
        return jnp.mean((y - truth) ** 2)

    few, many = (
        np.mean([error(features, jax.random.key(i)) for i in range(20)])
        for features in (14, 14 * 16)
    )
    assert few / many > 8  # 16 of an unbiased estimate; less, for it is a ratio of two
    assert many < 0.01 * np.mean(truth**2)


@pytest.mark.parametrize("kind", ["positive", "relu"])
def test_long_keys_and_queries_stay_finite(kind, rng):
    q, k, v = (x * 30 for x in draw(rng))
    y = jax.jit(functools.partial(favor.attend, kind=kind, features=M))(q, k, v)
    assert np.isfinite(y).all()
    assert np.abs(y).max() <= np.abs(v).max() * (1 + TOLERANCE)  # a mean of values


@pytest.mark.parametrize("kind", ["positive", "trigonometric"])
def test_the_constant_of_the_stabiliser_cancels(kind, rng):
    q, k, v = draw(rng)
    w = favor.draw(None, M, C)
    seen = np.ones((B, Q, K), bool)
    y, shifted = (loop(kind, w, q, k, v, seen, shift) for shift in (0.0, 3.0))
    if MAPS[kind].floor == 0:
        np.testing.assert_allclose(shifted, y, rtol=1e-9)
    else:  # but for the floor of 1e-6, which is exp(3) as large against such features
        assert 1e-9 < np.abs(shifted - y).max() < 1e-3


def test_results_have_the_dtype_of_values_and_bfloat16_operands_round(rng):
    q, k, v = draw(rng)
    attend = functools.partial(favor.attend, kind="relu", features=M)
    exact = jax.jit(attend)(q, k, v)
    rounded = jax.jit(functools.partial(attend, operands="bfloat16"))(q, k, v)
    half = jax.jit(attend)(*(jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)))
    assert (rounded.dtype, half.dtype) == (jnp.float32, jnp.bfloat16)
    for y in (rounded, half):
        assert 1e-4 < np.abs(y.astype(jnp.float32) - exact).max() < 0.05


def test_dropout_is_refused(rng):
    with pytest.raises(ValueError, match=r"favor_relu.*cannot drop 0.1.*attention_dropout_rate=0"):
        favor.attend(*draw(rng), kind="relu", dropout_rate=0.1, dropout_key=jax.random.key(0))


class TestCausal:
    def run(self, kind, chunk, mask):
        """q, k, v -> (gradients of a sum, values), compiled."""
        attend = functools.partial(favor.attend_causal, kind=kind, features=M, chunk=chunk)

        def total(q, k, v):
            y = attend(q, k, v, key_mask=mask)
            return (y**2).sum(), y

        return jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))

    def draw(self, rng):
        mask = rng.random((B, K)) < 0.7
        mask[0, :6] = False  # the first chunk and more
        return *draw(rng, q=K), mask

    def test_each_element_sees_what_a_plain_call_would_show_it(self, rng):
        q, k, v, mask = self.draw(rng)
        run = self.run("positive", 5, mask)
        gradients, y = run(q, k, v)
        seen = mask[:, None] & np.tri(K, dtype=bool)
        assert_close(y, loop("positive", favor.draw(None, M, C), q, k, v, seen))
        assert not y[0, :6].any()
        for found, at_once in zip(
            gradients, self.run("positive", K, mask)(q, k, v)[0], strict=True
        ):
            assert np.isfinite(found).all()
            assert_close(found, at_once)

        later_k, later_v = k.copy(), v.copy()
        later_k[:, 7:], later_v[:, 7:] = 0.0, 100.0  # the largest log_scale there is
        changed = run(q, later_k, later_v)[1]
        np.testing.assert_array_equal(y[:, :7], changed[:, :7])
        assert np.abs(y[:, -1] - changed[:, -1]).min() > 0.1

    @pytest.mark.parametrize("kind", [SIGNED, "relu"])
    def test_features_without_a_maximum(self, kind, rng):
        q, k, v, mask = self.draw(rng)
        attend = functools.partial(favor.attend_causal, kind=kind, features=M, chunk=5)
        y = jax.jit(attend)(q, k, v, key_mask=mask)
        seen = mask[:, None] & np.tri(K, dtype=bool)
        assert_close(y, loop(kind, favor.draw(None, M, C), q, k, v, seen), kind)


class TestStream:
    """Features in a model: anew in each step and layer of training, and at no other time."""

    def layer(self, dropout_rate=0.0, **compute):
        def call(x, is_training):
            join = Compute(kernel="favor_positive", features=M, **compute)
            for name in ("first", "second"):
                x = SelfAttend(
                    heads=2,
                    qk_channels=14,
                    v_channels=14,
                    dropout_rate=dropout_rate,
                    compute=join,
                    name=name,
                )(x, is_training=is_training)
            return x

        return hk.transform(call)

    @pytest.fixture
    def keys(self, monkeypatch):
        """The keys that kernels are given, in turn."""
        found = []
        kernel = attention.KERNELS["favor_positive"]

        def spy(*args, feature_key, **rest):
            found.append(None if feature_key is None else jax.random.key_data(feature_key).tolist())
            return kernel(*args, feature_key=feature_key, **rest)

        monkeypatch.setitem(attention.KERNELS, "favor_positive", spy)
        return found

    def test_training_draws_anew_and_evaluation_does_not(self, rng, keys):
        x = rng.standard_normal((B, 5, 14)).astype(np.float32)
        net = self.layer()
        params = net.init(jax.random.key(0), x, False)
        assert keys == [None, None]
        one, again, other = (net.apply(params, jax.random.key(i), x, True) for i in (1, 1, 2))
        first, second = keys[2:6], keys[6:]
        assert first[:2] == first[2:]
        assert len({str(key) for key in keys[4:]}) == 4  # two layers, two steps
        assert second
        np.testing.assert_array_equal(one, again)
        assert np.abs(one - other).max() > 1e-3
        keys.clear()
        evaluated = net.apply(params, None, x, False)
        np.testing.assert_array_equal(evaluated, net.apply(params, jax.random.key(9), x, False))
        fixed = self.layer(redraw=False).apply(params, jax.random.key(1), x, True)
        np.testing.assert_array_equal(fixed, evaluated)
        assert set(keys) == {None}

    def test_dropout_does_not_depend_on_the_kernel(self, rng):
        x = rng.standard_normal((B, 5, 14)).astype(np.float32)
        net = self.layer(dropout_rate=0.5)
        params = net.init(jax.random.key(0), x, False)
        for path, leaves in params.items():  # attention gives ones: what is zero was dropped
            if path.endswith("attention/out"):
                params[path] = {"w": 0 * leaves["w"], "b": 1 + 0 * leaves["b"]}
        exact = hk.transform(lambda x: _exact(x, 0.5))
        key = jax.random.key(4)
        np.testing.assert_allclose(
            net.apply(params, key, x, True), exact.apply(params, key, x), atol=1e-6
        )

    def test_training_without_a_key_is_told(self, rng):
        net = self.layer()
        x = np.zeros((1, 2, 14), np.float32)
        params = net.init(jax.random.key(0), x, False)
        with pytest.raises(
            ValueError, match=r"first/attend/attention: kernel 'favor_positive'.*rng"
        ):
            net.apply(params, None, x, True)


def _exact(x, dropout_rate):
    for name in ("first", "second"):
        x = SelfAttend(
            heads=2, qk_channels=14, v_channels=14, dropout_rate=dropout_rate, name=name
        )(x, is_training=True)
    return x


SPEC = {
    "kind": "masked_lm",
    "vocabulary": 19,
    "max_length": 23,
    "embedding_channels": 12,
    "latents": 5,
    "latent_channels": 16,
    "layers": 2,
    "cross_heads": 2,
    "cross_qk_channels": 6,
    "cross_v_channels": 10,
    "self_heads": 4,
    "self_qk_channels": 12,
    "query_heads": 2,
    "query_qk_channels": 6,
}


class TestInAModel:
    def test_every_attention_of_a_perceiver_is_approximate(self):
        model = perceiver.build({**SPEC, "kernel": "favor_positive", "kernel_features": 64})
        plans = {name: str(plan) for name, plan in model.explain().items()}
        assert list(plans) == ["stage 1", "decoder"]
        for plan in plans.values():
            assert "plain, the approximate kernel favor_positive reads keys and values" in plan
        exact = perceiver.build(SPEC)
        params, state = jax.jit(exact.init)(jax.random.key(0))
        for path, leaves in params.items():  # small logits are estimated well
            if path.endswith(("/query", "/key")):
                params[path] = {"w": 0.05 * leaves["w"], "b": leaves["b"]}
        tokens = np.arange(2 * 23, dtype=np.int32).reshape(2, 23) % 19
        inputs = {"tokens": tokens, "input_mask": tokens != 3}
        truth, estimate = (
            jax.jit(functools.partial(m.apply, rng=None, inputs=inputs))(params, state)[0]
            for m in (exact, model)
        )
        assert 0 < np.abs(estimate - truth).max() < 0.05 * np.abs(truth).max()

    @pytest.mark.parametrize("field", ["cross_path", "decode_path"])
    def test_exact_paths_are_refused(self, field):
        model = perceiver.build({**SPEC, "kernel": "favor_relu", field: "streaming"})
        message = "path 'streaming' computes the exact softmax, but kernel 'favor_relu'"
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(model.init, jax.random.key(0))

    def test_specs_refuse_what_such_a_kernel_cannot_do(self):
        for fields, message in (
            (
                {"attention_dropout_rate": 0.1},
                "attention_dropout_rate=0.1 must be 0 with kernel='favor_relu'",
            ),
            ({"kernel_features": 0}, "kernel_features=0 must be positive"),
        ):
            with pytest.raises(ValueError, match=re.escape(message)):
                perceiver.build({**SPEC, "kernel": "favor_relu", **fields})
        with pytest.raises(ValueError, match="features=0 must be positive"):
            dataclasses.replace(Compute(), features=0)


def test_flops_are_linear_in_the_window():
    base = perceiver.kinds.released.MODELS["performer-bytes"]
    exact = {**base, "kernel": "auto"}

    def count(spec, length):
        rows = flops.forward({**spec, "max_length": length})
        return {row.operation: row.once for row in rows}

    short, long = count(base, 512), count(base, 1024)
    assert all(long[name] == 2 * short[name] for name in short)
    assert "logits" not in short
    # 8 heads of 64 channels on 256 directions; hyperbolic features are twice as many
    assert short["features of keys"] == 2 * 512 * 64 * 256 * 8
    assert short["sums over keys"] == 2 * 512 * 64 * 256 * 8
    double = count({**base, "kernel": "favor_hyperbolic"}, 512)
    assert double["features of keys"] == short["features of keys"]
    assert double["weighted values"] == 2 * short["weighted values"]
    names = {"features of queries", "features of keys", "sums over keys", "weighted values"}
    products = sum(long[name] for name in names)
    # as many as the exact kernel's at twice as many elements as directions
    same = count(exact, 512)
    assert products // 2 == same["logits"] + same["weighted values"]
