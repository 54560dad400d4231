import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.attention.blocks import MLP, MultiHeadAttention, SelfAttend
from perceiver.model.cross_attend import CrossAttend
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute

TOLERANCE = 1e-5
B, Q, K, D, C, H = 2, 3, 5, 8, 7, 2


@pytest.fixture
def x(rng):
    return jnp.asarray(rng.standard_normal((B, Q, D)), jnp.float32)


@pytest.fixture
def inputs(rng):
    return jnp.asarray(rng.standard_normal((B, K, C)), jnp.float32)


def attention(**fields):
    sizes = {"heads": H, "qk_channels": 6, "v_channels": 10, "out_channels": 11}
    return MultiHeadAttention(**{**sizes, **fields}, name="attention")


def inputs_of(inputs, mask=None):
    return ByteArray.of(Segment(inputs, mask=mask))


def cross_attend(**fields):
    def call(x, inputs, **options):
        block = CrossAttend(heads=1, **fields, name="cross_attend")
        return block(x, inputs_of(inputs), **options)

    return call


def self_attend(**fields):
    return SelfAttend(heads=H, qk_channels=6, v_channels=10, **fields, name="self_attend")


def dense(params, x, name):
    return np.asarray(x, np.float64) @ params[name]["w"] + params[name]["b"]


def norm(params, x, name):
    x = np.asarray(x, np.float64)
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return y * params[name]["scale"] + params[name]["offset"]


def attend(params, q, kv, heads, scope="attention"):
    """Multi-head attention in numpy, head by head."""
    q, k, v = (
        dense(params, x, f"{scope}/{name}")
        for x, name in ((q, "query"), (kv, "key"), (kv, "value"))
    )
    heads = zip(*(np.split(y, heads, axis=-1) for y in (q, k, v)), strict=True)
    outputs = []
    for qh, kh, vh in heads:
        p = np.exp(qh @ kh.swapaxes(1, 2) / np.sqrt(qh.shape[-1]))
        outputs.append(p / p.sum(-1, keepdims=True) @ vh)
    return dense(params, np.concatenate(outputs, axis=-1), f"{scope}/out")


def mlp(params, x, scope):
    y = dense(params, x, f"{scope}/hidden")
    y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
    return dense(params, y, f"{scope}/out")


def test_multi_head_attention_equals_numpy(run, x):
    y, params = run(lambda x: attention()(x), x)
    assert y.shape == (B, Q, 11)
    np.testing.assert_allclose(y, attend(params, x, x, H), atol=TOLERANCE)


def test_mlp_equals_numpy(run, x):
    y, params = run(lambda x: MLP(widening=3, name="mlp")(x), x)
    assert params["mlp/hidden"]["w"].shape == (D, 3 * D)
    np.testing.assert_allclose(y, mlp(params, x, "mlp"), atol=TOLERANCE)


def test_self_attend_equals_numpy(run, x):
    y, params = run(lambda x: self_attend(widening=2)(x), x)
    s = "self_attend"
    expected = np.asarray(x, np.float64)
    normed = norm(params, expected, f"{s}/attend/norm")
    expected = expected + attend(params, normed, normed, H, f"{s}/attend/attention")
    normed = norm(params, expected, f"{s}/feed_forward/norm")
    expected = expected + mlp(params, normed, f"{s}/feed_forward/mlp")
    np.testing.assert_allclose(y, expected, atol=TOLERANCE)


@pytest.mark.parametrize("query_residual", [True, False])
def test_cross_attend_equals_numpy(run, x, inputs, query_residual):
    y, params = run(lambda *args: cross_attend(query_residual=query_residual)(*args), x, inputs)
    s = "cross_attend"
    # unless told otherwise, as wide as the inputs
    assert params[f"{s}/attend/attention/query"]["w"].shape == (D, C)
    assert params[f"{s}/attend/attention/value"]["w"].shape == (C, C)
    q = norm(params, x, f"{s}/attend/norm")
    kv = norm(params, inputs, f"{s}/attend/norm_inputs")
    expected = attend(params, q, kv, 1, f"{s}/attend/attention")
    expected = expected + np.asarray(x) if query_residual else expected
    normed = norm(params, expected, f"{s}/feed_forward/norm")
    expected = expected + mlp(params, normed, f"{s}/feed_forward/mlp")
    np.testing.assert_allclose(y, expected, atol=TOLERANCE)


@pytest.mark.parametrize("module", ["self_attend", "cross_attend"])
def test_blocks_whose_branches_are_zero_are_the_identity(draw_params, x, inputs, module):
    def block(x, inputs):
        return self_attend()(x) if module == "self_attend" else cross_attend()(x, inputs)

    transformed = hk.transform(block)
    params = draw_params(transformed.init, x, inputs)
    silent = {
        path: jax.tree.map(np.zeros_like, leaves) if path.endswith("/out") else leaves
        for path, leaves in params.items()
    }
    np.testing.assert_array_equal(transformed.apply(silent, None, x, inputs), x)


@pytest.mark.parametrize(
    ("channels", "culprit", "number"),
    [({"qk_channels": 7}, "query", 7), ({"v_channels": 9}, "value", 9)],
)
def test_heads_must_divide_channels(x, channels, culprit, number):
    message = f"attention/{culprit}: {number} channels are not divisible by 2 heads; choose a mult"
    with pytest.raises(ValueError, match=message):
        hk.transform(lambda x: attention(**channels)(x)).init(jax.random.key(0), x)


def test_cross_attend_as_wide_as_inputs_names_the_projection(x, inputs):
    def block(x, inputs):
        return CrossAttend(heads=3, name="cross_attend")(x, inputs_of(inputs))

    with pytest.raises(ValueError, match="cross_attend/attend/attention/query: 7 channels are not"):
        hk.transform(block).init(jax.random.key(0), x, inputs)


def test_an_unknown_kernel_is_refused(x):
    unknown = Compute(kernel="flash")
    with pytest.raises(ValueError, match="unknown attention kernel 'flash'"):
        hk.transform(lambda x: attention(compute=unknown)(x)).init(jax.random.key(0), x)


class TestWeights:
    @staticmethod
    def module(heads=1):
        return CrossAttend(heads=heads, qk_channels=6, v_channels=10, name="cross_attend")

    def test_calling_for_them_leaves_the_parameters_as_they_are(self, x, inputs):
        def both(x, inputs):
            made = self.module()
            return made(x, inputs_of(inputs)), made.weights(x, inputs_of(inputs))

        def shapes(function):
            return jax.eval_shape(hk.transform(function).init, jax.random.key(0), x, inputs)

        assert shapes(both) == shapes(lambda x, i: self.module()(x, inputs_of(i)))

    def test_they_are_those_of_the_call(self, draw_params, x, inputs):
        def make():
            made = self.module()
            return made, (made, made.weights)

        mask = np.array([[1, 1, 0, 1, 0], [1] * 5], bool)
        transformed = hk.multi_transform(make)
        params = draw_params(transformed.init, x, inputs_of(inputs))
        call, weights_of = transformed.apply
        weights = weights_of(params, None, x, inputs_of(inputs, mask))
        assert weights.dtype == jnp.float32
        assert weights.shape == (B, 1, Q, K)
        np.testing.assert_allclose(weights.sum(-1), 1, atol=TOLERANCE)
        assert not weights[0, :, :, ~mask[0]].any()
        # where a key has no weight the output does not depend on it
        moved = inputs.at[0, 2].add(3.0)
        np.testing.assert_array_equal(
            call(params, None, x, inputs_of(inputs, mask)),
            call(params, None, x, inputs_of(moved, mask)),
        )

    def test_numpy_agrees(self, run, x, inputs):
        weights, params = run(lambda x, i: self.module(heads=H).weights(x, inputs_of(i)), x, inputs)
        scope = "cross_attend/attend"
        q = dense(params, norm(params, x, f"{scope}/norm"), f"{scope}/attention/query")
        k = dense(params, norm(params, inputs, f"{scope}/norm_inputs"), f"{scope}/attention/key")
        logits = np.stack(
            [
                a @ b.swapaxes(1, 2) / np.sqrt(3)
                for a, b in zip(np.split(q, H, -1), np.split(k, H, -1), strict=True)
            ],
            axis=1,
        )
        p = np.exp(logits)
        np.testing.assert_allclose(weights, p / p.sum(-1, keepdims=True), atol=TOLERANCE)


def test_a_query_mask_hides_what_a_query_reads(draw_params, x, inputs):
    """A hidden query keeps its own stream, and nothing of the inputs gets into it."""
    transformed = hk.transform(lambda x, i: cross_attend()(x, i, query_mask=mask))
    mask = np.array([[True, False, True], [True, True, False]])
    params = draw_params(transformed.init, x, inputs)
    y, moved = (transformed.apply(params, None, x, i) for i in (inputs, inputs + 3 * inputs**2))
    np.testing.assert_array_equal(y[~mask], moved[~mask])
    assert (np.abs(y[mask] - moved[mask]).max(axis=-1) > 1e-3).all()


def test_a_mask_in_self_attention_hides_elements_from_the_others(draw_params, x):
    mask = np.array([[True, False, True], [True, True, True]])
    transformed = hk.transform(lambda x: self_attend()(x, mask=mask))
    params = draw_params(transformed.init, x)
    y, moved = (transformed.apply(params, None, z) for z in (x, x.at[0, 1].add(2.0)))
    np.testing.assert_array_equal(y[mask], moved[mask])


@pytest.mark.parametrize("rates", [{"dropout_rate": 0.5}, {"attention_dropout_rate": 0.5}])
@pytest.mark.parametrize("module", ["self_attend", "cross_attend"])
def test_dropout_is_for_training_and_evaluation_takes_no_key(draw_params, x, inputs, module, rates):
    def block(x, inputs, is_training=False):
        if module == "self_attend":
            return self_attend(**rates)(x, is_training=is_training)
        return cross_attend(**rates)(x, inputs, is_training=is_training)

    transformed = hk.transform(block)
    params = draw_params(transformed.init, x, inputs)
    apply = jax.jit(transformed.apply, static_argnames="is_training")

    def train(seed):
        return apply(params, jax.random.key(seed), x, inputs, is_training=True)

    evaluated = apply(params, None, x, inputs)
    np.testing.assert_array_equal(train(1), train(1))
    assert not np.allclose(train(1), train(2))
    assert not np.allclose(train(1), evaluated)
    with pytest.raises(ValueError, match="PRNGKey"):
        apply(params, None, x, inputs, is_training=True)
