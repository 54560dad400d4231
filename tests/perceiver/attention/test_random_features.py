"""Estimates of kernels: without bias, with the variances that the paper derives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.attention import random_features
from perceiver.attention.random_features import MAPS, directions, estimate, mean_squared_error

SOFTMAX = ("positive", "hyperbolic", "trigonometric")
D, M, DRAWS = 5, 5, 20_000
STANDARD_ERRORS = 5  # of a mean: one in two million normal draws is further away
LENGTH = 0.5  # of vectors: estimates are log-normal, and soon have variances that none can measure


def pair(angle, length=LENGTH):  # -> x, y [1, 1, 1, D] of a length, at an angle
    x, y = np.zeros((2, 1, 1, 1, D), np.float32)
    x[..., 1] = length
    y[..., 1], y[..., 3] = length * np.cos(angle), length * np.sin(angle)
    return x, y


@pytest.fixture(scope="module")
def drawn():
    """orthogonal, norms -> w [DRAWS, M, D]: as M = D, each block is a draw."""
    found = {}

    def draw(orthogonal, norms="chi"):
        if (orthogonal, norms) not in found:
            how = {"orthogonal": orthogonal, "norms": norms}
            w = directions(jax.random.key(7), DRAWS * M, D, **how)
            found[orthogonal, norms] = w.reshape(DRAWS, M, D)
        return found[orthogonal, norms]

    return draw


@functools.partial(jax.jit, static_argnames="kind")
def _estimates(kind, x, y, w):
    return jax.vmap(lambda w: estimate(kind, x, y, w)[0, 0, 0])(w)


def estimates(kind, x, y, w):  # -> float64 [DRAWS]
    return np.asarray(_estimates(kind, x, y, w), np.float64)


def closed_form(kind, x, y):
    return float(mean_squared_error(kind, x, y, M).item())


def assert_mean(values, expected):
    assert abs(values.mean() - expected) < STANDARD_ERRORS * values.std() / len(values) ** 0.5


@pytest.mark.parametrize("kind", SOFTMAX)
def test_independent_directions_have_the_error_of_the_closed_form(kind, drawn):
    for angle in (0.3, 1.7, 2.9):
        x, y = pair(angle)
        errors = estimates(kind, x, y, drawn(False)) - np.exp(np.vdot(x, y))
        expected = closed_form(kind, x, y)
        assert abs(errors.mean()) < STANDARD_ERRORS * (expected / DRAWS) ** 0.5
        assert_mean(errors**2, expected)


@pytest.mark.parametrize("kind", SOFTMAX)
def test_orthogonal_directions_have_less_error_and_no_bias(kind, drawn):
    x, y = pair(1.1)
    truth = np.exp(np.vdot(x, y))
    errors = estimates(kind, x, y, drawn(True)) - truth
    assert_mean(errors, 0.0)
    found, spread = np.mean(errors**2), np.std(errors**2) / DRAWS**0.5
    assert found < closed_form(kind, x, y) - STANDARD_ERRORS * spread
    if kind == "positive":  # Theorem 2: the least that is gained
        gain = (1 - 1 / M) * 2 / (D + 2) * (truth - np.exp(-(LENGTH**2))) ** 2
        assert found < closed_form(kind, x, y) - gain + spread


def test_positive_features_are_better_where_the_kernel_is_small_and_worse_where_it_is_large():
    positive, hyperbolic, trigonometric = (
        [closed_form(kind, *pair(angle)) for angle in (0.1, 3.0)] for kind in SOFTMAX
    )
    assert trigonometric[0] < 0.01 * positive[0]
    assert positive[1] < 0.01 * trigonometric[1]
    assert all(np.array(hyperbolic) < 0.5 * np.array(positive))


def test_relu_features_estimate_the_arc_cosine_kernel(drawn):
    x, y = pair(1.1, length=1.3)
    # E[max(w.x, 0) max(w.y, 0)] (Cho and Saul 2009, order one)
    truth = 1.3**2 / (2 * np.pi) * (np.sin(1.1) + (np.pi - 1.1) * np.cos(1.1))
    assert_mean(estimates("relu", x, y, drawn(True)), truth)


def test_sqrt_norms_estimate_a_smaller_kernel(drawn):
    x, y = pair(0.0, length=1.0)
    found = estimates("positive", x, y, drawn(True, "sqrt"))
    below = np.exp(np.vdot(x, y)) - found.mean()
    assert below > STANDARD_ERRORS * found.std() / DRAWS**0.5


def test_directions_are_orthogonal_within_a_block_and_as_long_as_normal_vectors():
    w = np.asarray(directions(jax.random.key(1), 2000 * D - 2, D), np.float64)
    assert w.shape == (2000 * D - 2, D)
    lengths = np.linalg.norm(w, axis=1)
    blocks = (w / lengths[:, None])[: 1999 * D].reshape(-1, D, D)
    eye = np.broadcast_to(np.eye(D), blocks.shape)
    np.testing.assert_allclose(blocks @ np.swapaxes(blocks, 1, 2), eye, atol=1e-5)
    squares = lengths**2  # chi squared of D degrees: mean D, variance 2 D
    assert abs(squares.mean() - D) < STANDARD_ERRORS * (2 * D / len(w)) ** 0.5
    assert abs(squares.var() / (2 * D) - 1) < 0.1
    # a length says nothing of the next one
    assert abs(np.corrcoef(lengths[:-1], lengths[1:])[0, 1]) < STANDARD_ERRORS / len(w) ** 0.5
    fixed = directions(jax.random.key(1), 7, D, norms="sqrt")
    np.testing.assert_allclose(np.linalg.norm(fixed, axis=1), D**0.5, rtol=1e-6)


def test_orthogonal_matrices_are_drawn_evenly():
    n = 20_000
    q = np.asarray(random_features.haar(jax.random.key(2), n, 3), np.float64)
    # Of Haar's measure: trace has mean 0 and variance 1, entries mean 0 and variance 1 / 3. Without
    # the signs, the last diagonal entry of LAPACK's Q is always negative, say.
    trace = np.trace(q, axis1=1, axis2=2)
    assert abs(trace.mean()) < STANDARD_ERRORS / n**0.5
    assert abs(trace.var() - 1) < 0.05
    assert np.abs(q.mean(axis=0)).max() < STANDARD_ERRORS * (1 / 3 / n) ** 0.5
    np.testing.assert_allclose((q**2).mean(axis=0), 1 / 3, atol=0.02)
    assert abs(np.mean(np.linalg.det(q) > 0) - 0.5) < STANDARD_ERRORS * 0.5 / n**0.5


def test_unknown_norms_are_refused():
    with pytest.raises(ValueError, match="norms='ones' is unknown; choose one of chi, sqrt"):
        directions(jax.random.key(0), 3, D, norms="ones")


@pytest.mark.parametrize("kind", MAPS)
def test_long_vectors_do_not_overflow(kind):
    x = np.full((1, 1, 2, D), 40.0, np.float32)
    w = directions(jax.random.key(0), 7, D)
    found = random_features.features(kind, jnp.asarray(x), w)
    assert np.isfinite(found.values).all()
    assert np.isfinite(found.log_scale).all()
    if kind != "relu":
        assert found.values.max() <= 1
