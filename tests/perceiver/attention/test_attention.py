"""The reference kernel is the yardstick of every other one, so it is measured against a loop."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perceiver import attention
from perceiver.attention import fused, recompute, reference

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


def draw_mask(rng, how, length):  # -> bool [B, length] or None
    if how == "none":
        return None
    drawn = rng.random((B, length)) < 0.6
    drawn[0] &= how == "some"
    return drawn


masks = st.sampled_from(["none", "some", "all hidden in one example"])


@example(
    sizes=(3, 7, 2, 5, 3),
    key_masking="all hidden in one example",
    query_masking="some",
    seed=1,
)
@given(
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 5, 7])] * 5),
    key_masking=masks,
    query_masking=masks,
    seed=st.integers(0, 99),
)
def test_values_equal_the_loop(sizes, key_masking, query_masking, seed):
    rng = np.random.default_rng(seed)
    qkv = draw_qkv(rng, *sizes)
    masks = {
        "key_mask": draw_mask(rng, key_masking, sizes[1]),
        "query_mask": draw_mask(rng, query_masking, sizes[0]),
    }
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


def value_and_gradients(attend, qkv, weight, **options):
    def total(q, k, v):
        y = attend(q, k, v, **options)
        return jnp.vdot(weight, y.astype(jnp.float32)), y

    gradients, y = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(*qkv)
    return y, *gradients


def relative_error(actual, expected):
    actual, expected = (np.asarray(x, np.float64) for x in (actual, expected))
    return np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-30)


class TestRecompute:
    """Its derivative is written by hand: that of the reference is JAX's own."""

    @example(
        sizes=(3, 7, 2, 5, 3),
        key_masking="all hidden in one example",
        query_masking="some",
        rate=0.4,
        seed=1,
    )
    @given(
        sizes=st.tuples(*[st.sampled_from([1, 2, 3, 5, 7])] * 5),
        key_masking=masks,
        query_masking=masks,
        rate=st.sampled_from([0.0, 0.4]),
        seed=st.integers(0, 99),
    )
    def test_values_and_gradients_equal_the_reference(
        self, sizes, key_masking, query_masking, rate, seed
    ):
        rng = np.random.default_rng(seed)
        qkv = draw_qkv(rng, *sizes)
        weight = rng.standard_normal((B, sizes[0], sizes[2], sizes[4])).astype(np.float32)
        options = {
            "key_mask": draw_mask(rng, key_masking, sizes[1]),
            "query_mask": draw_mask(rng, query_masking, sizes[0]),
            "dropout_rate": rate,
            "dropout_key": jax.random.key(seed),  # both draw the same weights to drop
        }
        ours = value_and_gradients(recompute.attend, qkv, weight, **options)
        expected = value_and_gradients(reference.attend, qkv, weight, **options)
        for one, other in zip(ours, expected, strict=True):
            assert np.isfinite(one).all()
            np.testing.assert_allclose(one, other, atol=1e-5 * max(1, np.abs(other).max()))

    def test_large_logits_do_not_overflow(self, qkv):
        q, k, v = qkv
        weight = np.ones((B, Q, H, V), np.float32)
        for got in value_and_gradients(recompute.attend, (100 * q, 100 * k, v), weight):
            assert np.isfinite(got).all()

    def test_it_works_under_vmap_and_twice_differentiated(self, qkv):
        stacked = jax.tree.map(lambda x: jnp.stack([x, 2 * x, -x]), qkv)
        together = jax.vmap(recompute.attend)(*stacked)
        one_by_one = [recompute.attend(*(x[i] for x in stacked)) for i in range(3)]
        np.testing.assert_allclose(together, jnp.stack(one_by_one), atol=F32_TOLERANCE)

        def slope(attend, q):
            inner = jax.grad(lambda q: jnp.sum(attend(q, *qkv[1:]) ** 2))
            return jnp.sum(inner(q) ** 2)

        ours, expected = (
            jax.jit(jax.grad(functools.partial(slope, attend)))(qkv[0])
            for attend in (recompute.attend, reference.attend)
        )
        np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())

    def test_it_keeps_no_weights_for_the_backward_pass(self, rng):
        qkv = draw_qkv(rng, q=101, k=103)

        def elements(attend):
            kept = jax.tree.leaves(jax.eval_shape(lambda *x: jax.vjp(attend, *x)[1], *qkv))
            return max(x.size for x in kept)

        assert elements(reference.attend) == B * H * 101 * 103
        assert elements(recompute.attend) == B * H * 103 * V  # the values


class TestOperands:
    @pytest.mark.parametrize("kernel", ["reference", "recompute"])
    def test_bfloat16_rounds_products_only(self, rng, kernel):
        qkv = draw_qkv(rng, q=31, k=37, c=16, v=24)
        weight = rng.standard_normal((B, 31, H, 24)).astype(np.float32)
        attend = attention.KERNELS[kernel]
        rounded = value_and_gradients(attend, qkv, weight, operands="bfloat16")
        exact = value_and_gradients(attend, qkv, weight)
        for one, other in zip(rounded, exact, strict=True):
            assert one.dtype == jnp.float32
            assert 1e-5 < relative_error(one, other) < 1e-2

    def test_gradients_are_products_of_bfloat16(self, qkv):
        attend = functools.partial(recompute.attend, operands="bfloat16")
        jaxpr = jax.make_jaxpr(jax.grad(lambda *x: attend(*x).sum(), argnums=(0, 1, 2)))(*qkv)
        products = [eqn for eqn in equations(jaxpr) if eqn.primitive.name == "dot_general"]
        dtypes = [tuple(str(x.aval.dtype) for x in eqn.invars) for eqn in products]
        assert dtypes.count(("bfloat16", "bfloat16")) == 2 + 5  # forward and backward
        assert dtypes.count(("float32", "float32")) == 1  # y . dy


def equations(jaxpr):
    """All equations of a program, those of inner programs among them."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            if hasattr(inner, "eqns"):
                yield from equations(inner)


HOPPER, AMPERE = fused.Device("gpu", 9.0), fused.Device("gpu", 8.6)
BF16 = "bfloat16"


def shapes(q=512, k=512, c=128, v=128, dtype="float32"):
    sizes = ((2, q, 8, c), (2, k, 8, c), (2, k, 8, v))
    return [jax.ShapeDtypeStruct(size, jnp.dtype(dtype)) for size in sizes]


def choose(shapes, device, operands="float32", masked=False, drops=False):
    return attention.choose(*shapes, masked=masked, drops=drops, operands=operands, device=device)


class TestChoice:
    @pytest.mark.parametrize(
        ("sizes", "device", "options"),
        [
            ({"dtype": BF16}, HOPPER, {}),  # ImageNet
            ({"dtype": BF16}, AMPERE, {}),
            ({"dtype": "float16"}, HOPPER, {}),
            ({}, HOPPER, {"operands": BF16}),
            ({"c": 32, "v": 32}, HOPPER, {"operands": BF16}),  # flow
            ({"q": 256, "k": 256, "c": 32, "v": 160}, HOPPER, {"operands": BF16}),  # masked LM
            ({"c": 256, "v": 256}, HOPPER, {"operands": BF16}),
            ({"c": 31, "v": 37}, AMPERE, {"operands": BF16}),  # padded to 40
            ({}, HOPPER, {"operands": BF16, "masked": True}),
            ({}, fused.Device("gpu", 10.0), {"operands": BF16}),
        ],
    )
    def test_cudnn_serves(self, sizes, device, options):
        assert choose(shapes(**sizes), device, **options).kernel == "cudnn"

    @pytest.mark.parametrize(
        ("sizes", "device", "options", "reason"),
        [
            ({}, fused.Device("cpu", None), {"operands": BF16}, "needs an NVIDIA GPU, .* a cpu"),
            ({}, fused.Device("tpu", None), {"operands": BF16}, "needs an NVIDIA GPU, .* a tpu"),
            ({}, fused.Device("gpu", None), {"operands": BF16}, "needs an NVIDIA GPU"),  # AMD's
            ({}, fused.Device("gpu", 7.5), {"operands": BF16}, "capability 8.0, .* has 7.5"),
            ({}, HOPPER, {}, "16-bit operands, not float32; set operands='bfloat16'"),
            ({}, HOPPER, {"operands": BF16, "drops": True}, "set attention_dropout_rate=0"),
            ({"c": 261, "v": 261}, HOPPER, {"operands": BF16}, "at most 256 .* not 264"),
            ({"c": 32, "v": 160}, AMPERE, {"operands": BF16}, "at most 128 .* not 160"),
            ({"k": 37}, HOPPER, {"operands": BF16, "masked": True}, "even .* 512 and 37"),
        ],
    )
    def test_another_takes_its_place_where_it_cannot(self, sizes, device, options, reason):
        choice = choose(shapes(**sizes), device, **options)
        assert choice.kernel == "recompute"
        assert re.search(reason, choice.reason)

    def test_the_default_device_is_asked(self):
        device = jax.devices()[0]
        assert fused.device().platform == device.platform
        assert (fused.device().capability is None) == (device.platform != "gpu")

    def test_the_choice_is_logged(self, qkv, caplog):
        with caplog.at_level("INFO", logger="perceiver.attention"):
            y = attention.kernel("auto")(*qkv)
        np.testing.assert_allclose(y, reference.attend(*qkv), atol=F32_TOLERANCE)
        assert "recompute, because cudnn needs" in caplog.text

    @pytest.mark.skipif(jax.default_backend() == "gpu", reason="a GPU may serve")
    def test_cudnn_by_name_refuses_loudly(self, qkv):
        with pytest.raises(ValueError, match=r"'cudnn' cannot attend from float32 .*kernel='auto'"):
            attention.kernel("cudnn")(*qkv)


class TestFused:
    """All of cuDNN's kernel but cuDNN: the padding, the scale, the masks."""

    @pytest.mark.parametrize(
        ("c", "v", "key_masking"),
        [
            (8, 8, "none"),
            (3, 13, "some"),
            (13, 3, "all hidden in one example"),
            (32, 160, "none"),
            (32, 160, "some"),
        ],
    )
    def test_padding_changes_nothing(self, rng, c, v, key_masking):
        qkv = draw_qkv(rng, c=c, v=v)
        mask = draw_mask(rng, key_masking, K)
        weight = rng.standard_normal((B, Q, H, v)).astype(np.float32)

        def padded(q, k, v, *, key_mask):
            return fused.padded(q, k, v, key_mask, jnp.float32, implementation="xla")

        ours = value_and_gradients(padded, qkv, weight, key_mask=mask)
        expected = value_and_gradients(reference.attend, qkv, weight, key_mask=mask)
        for one, other in zip(ours, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5 * max(1, np.abs(other).max()))

    @pytest.mark.gpu
    @pytest.mark.parametrize(("c", "v"), [(128, 128), (32, 32), (32, 64)])
    @pytest.mark.parametrize("masked", [False, True])
    def test_cudnn_equals_the_reference(self, rng, c, v, masked):
        qkv = draw_qkv(rng, q=64, k=128, c=c, v=v)
        weight = rng.standard_normal((B, 64, H, v)).astype(np.float32)
        options = {"operands": "bfloat16", "key_mask": None}
        if masked:
            options["key_mask"] = draw_mask(rng, "all hidden in one example", 128)
        ours = value_and_gradients(fused.attend, qkv, weight, **options)
        expected = value_and_gradients(reference.attend, qkv, weight, **options)
        for one, other in zip(ours, expected, strict=True):
            assert relative_error(one, other) < 2e-2


def test_kernels_are_found_by_name():
    assert attention.kernel("reference") is reference.attend
    with pytest.raises(ValueError, match=r"unknown attention kernel 'flash'; known: auto, .*ref"):
        attention.kernel("flash")
