import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.attention.blocks import SelfAttend
from perceiver.nn import residual
from perceiver.nn.residual import (
    RESIDUALS,
    Residual,
    deepnorm_decoder,
    deepnorm_encoder,
    deepnorm_encoder_decoder,
)

TOLERANCE = 1e-5


def normalise(x, params):
    x = np.asarray(x, np.float64)
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return y * params["scale"] + params["offset"]


@pytest.fixture
def x(rng):
    return jnp.asarray(rng.standard_normal((2, 3, 7)), jnp.float32)


@pytest.fixture
def join(x, run):
    """join(**fields) -> (output, parameters of the norm) of a residual around 3 sin(.)."""

    def join(**fields):
        y, params = run(lambda x: Residual(**fields, name="r")(x, lambda y: 3 * jnp.sin(y)), x)
        assert list(params) == ["r/norm"]
        return y, params["r/norm"]

    return join


def test_pre_norm_adds_the_branch_of_the_normalised_stream(join, x):
    y, norm = join()
    np.testing.assert_allclose(y, x + 3 * np.sin(normalise(x, norm)), atol=TOLERANCE)


def test_without_skip_the_branch_is_the_result(join, x):
    y, norm = join(skip=False)
    np.testing.assert_allclose(y, 3 * np.sin(normalise(x, norm)), atol=TOLERANCE)


def test_deep_norm_normalises_the_weighted_sum(join, x):
    y, norm = join(alpha=2.5)
    expected = normalise(2.5 * np.asarray(x) + 3 * np.sin(np.asarray(x)), norm)
    np.testing.assert_allclose(y, expected, atol=TOLERANCE)


def test_a_branch_of_zeros_is_the_identity(x, run):
    y, _ = run(lambda x: Residual(name="r")(x, jnp.zeros_like), x)
    np.testing.assert_array_equal(y, x)


def test_norms_compute_in_float32(x):
    # a mean of 1,000 leaves bfloat16 no bits for deviations of size 1; only the output is rounded
    transformed = hk.transform(lambda x: Residual(skip=False, name="r")(x, lambda y: y))
    shifted = (1000 + 16 * x).astype(jnp.bfloat16)
    params = transformed.init(jax.random.key(0), shifted)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    y = transformed.apply(params, None, shifted)
    assert y.dtype == jnp.bfloat16
    expected = normalise(np.asarray(shifted, np.float32), {"scale": 1, "offset": 0})
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, atol=2**-7)


def test_dropout_acts_on_the_branch_in_training_only(run):
    x = jnp.ones((2, 3, 1009))

    def residual(x, is_training):
        return Residual(dropout_rate=0.25, name="r")(x, jnp.ones_like, is_training=is_training)

    evaluated = hk.transform(lambda x: residual(x, False))
    params = evaluated.init(None, x)  # evaluation draws nothing, so it takes no key
    np.testing.assert_array_equal(evaluated.apply(params, None, x), np.full(x.shape, 2.0))

    trained = hk.transform(lambda x: residual(x, True))
    y = trained.apply(params, jax.random.key(1), x)
    np.testing.assert_allclose(np.unique(y), [1, 1 + 1 / 0.75], rtol=1e-6)
    assert abs((y == 1).mean() - 0.25) < 0.03
    with pytest.raises(ValueError, match="PRNGKey"):
        trained.apply(params, None, x)


class TestDeepNorm:
    def test_constants_of_the_paper(self):
        # table of section 4.3, for 100 layers of each part, computed by hand
        np.testing.assert_allclose(deepnorm_encoder(100), (3.76060, 0.188030), rtol=1e-5)
        np.testing.assert_allclose(deepnorm_decoder(100), (3.76060, 0.188030), rtol=1e-5)
        encoder, decoder = deepnorm_encoder_decoder(100, 100)
        np.testing.assert_allclose(encoder, (3.415725, 0.206310), rtol=1e-5)
        np.testing.assert_allclose(decoder, (4.161791, 0.169904), rtol=1e-5)
        encoder, decoder = deepnorm_encoder_decoder(18, 6)
        np.testing.assert_allclose(encoder.alpha, 0.81 * (18**4 * 6) ** (1 / 16), rtol=1e-12)
        np.testing.assert_allclose(decoder.beta, (12 * 6) ** -0.25, rtol=1e-12)

    def test_updates_are_bounded_alike_at_every_depth(self):
        # theorem 4.2's condition: 2 N (v^2 + w^2) / alpha^2 stays 1 with v = w = beta
        for layers in (1, 12, 1000):
            alpha, beta = deepnorm_encoder(layers)
            np.testing.assert_allclose(2 * layers * 2 * beta**2 / alpha**2, 1, rtol=1e-12)

    def test_values_outputs_and_feed_forward_start_small(self):
        width, beta = 211, deepnorm_encoder(50).beta

        def layer(x):
            sizes = {"heads": 1, "qk_channels": width, "v_channels": width, "widening": 3}
            return SelfAttend(
                **sizes, residual=residual.residual_connection("deepnorm", 50), name="layer"
            )(x)

        params = hk.transform(layer).init(jax.random.key(0), jnp.zeros((1, 2, width)))
        gains = {
            path.removeprefix("layer/"): float(
                leaves["w"].std() * np.sqrt(sum(leaves["w"].shape) / 2)
            )
            for path, leaves in params.items()
            if "w" in leaves
        }
        small = ("attend/attention/value", "attend/attention/out")
        small += ("feed_forward/mlp/hidden", "feed_forward/mlp/out")
        expected = dict.fromkeys(small, beta)
        expected |= dict.fromkeys(("attend/attention/query", "attend/attention/key"), 1.0)
        assert gains.keys() == expected.keys()
        for path, gain in gains.items():  # a standard deviation of 44,521 draws: 0.3 % off
            np.testing.assert_allclose(gain, expected[path], rtol=0.02, err_msg=path)


def test_post_norm_is_deep_norm_without_weights():
    assert residual.residual_connection("post_norm", 7).alpha == 1.0
    assert residual.residual_connection("post_norm", 7).beta is None
    assert residual.residual_connection("pre_norm", 7).alpha is None


def test_an_unknown_residual_is_refused():
    with pytest.raises(ValueError, match=f"'sandwich'; choose one of {', '.join(RESIDUALS)}"):
        residual.residual_connection("sandwich", 7)


def test_epsilon_reaches_the_norm(run):
    x = jnp.asarray([[[1e-3, -1e-3]]])
    y, norm = run(lambda x: Residual(alpha=1.0, epsilon=1e-12, name="r")(x, jnp.zeros_like), x)
    signs = np.array([[[1.0, -1.0]]])
    expected = signs * norm["r/norm"]["scale"] + norm["r/norm"]["offset"]
    np.testing.assert_allclose(y, expected, rtol=1e-5)
