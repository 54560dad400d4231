import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.residual import Residual

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
