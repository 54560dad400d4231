"""Losses of embeddings against closed forms, retrieval against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import sklearn.metrics
import sklearn.metrics.pairwise

from train.objective import retrieval, sentence_losses

CLOSE = {"rtol": 2e-5, "atol": 2e-6}  # float32 against float64


@pytest.fixture
def three(rng):
    """Three texts' embeddings [7, 5]."""
    return tuple(rng.normal(size=(7, 5)).astype(np.float32) for _ in range(3))


def numeric_gradient(f, x, step=1e-3):
    """Central differences of a sum, in float64 of float32 evaluations."""
    found = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        found[place] = (float(f(up)) - float(f(down))) / (2 * step)
    return found


def test_cosine_and_its_error_are_as_written(three, rng):
    u, v, _ = three
    expected = np.diagonal(sklearn.metrics.pairwise.cosine_similarity(u, v))
    np.testing.assert_allclose(sentence_losses.cosine(u, v), expected, **CLOSE)
    scores = rng.random(7).astype(np.float32)
    error = sentence_losses.cosine_error(u, v, scores)
    np.testing.assert_allclose(error, (expected - scores) ** 2, **CLOSE)
    # d cos / du = (v / |v| - cos u / |u|) / |u|
    grad = jax.grad(lambda u: sentence_losses.cosine_error(u, v, scores).sum())(u)
    lengths = np.linalg.norm(u, axis=1, keepdims=True)
    unit_v = v / np.linalg.norm(v, axis=1, keepdims=True)
    of_cosine = (unit_v - expected[:, None] * u / lengths) / lengths
    np.testing.assert_allclose(grad, 2 * (expected - scores)[:, None] * of_cosine, **CLOSE)


def test_triplet_is_as_written(three):
    a, p, n = three
    near, far = (
        np.array([scipy.spatial.distance.euclidean(*rows) for rows in zip(a, x, strict=True)])
        for x in (p, n)
    )
    found = sentence_losses.triplet(a, p, n, margin=0.7)
    expected = np.maximum(near - far + 0.7, 0)
    assert 0 < (expected == 0).sum() < 7  # some are met, some not
    np.testing.assert_allclose(found, expected, **CLOSE)
    grad = jax.grad(lambda a: sentence_losses.triplet(a, p, n, margin=0.7).sum())(a)
    ways = (a - p) / near[:, None] - (a - n) / far[:, None]
    np.testing.assert_allclose(grad, np.where(expected[:, None] > 0, ways, 0), **CLOSE)


def test_texts_that_are_one_point_have_finite_gradients():
    zeros = jnp.zeros((3, 5))
    ones = jnp.ones((3, 5))
    for f in (
        lambda x: sentence_losses.triplet(x, x, ones, margin=1.0).sum(),
        lambda x: sentence_losses.cosine_error(x, ones, jnp.ones(3)).sum(),
        lambda x: sentence_losses.in_batch_negatives(
            x, x, jnp.array([True, True, False]), temperature=0.05
        ).sum(),
    ):
        assert np.isfinite(jax.grad(f)(zeros)).all()


def test_negatives_are_symmetric_cross_entropy(three):
    u, v, _ = three
    mask = np.array([True, True, False, True, True, False, True])
    found = sentence_losses.in_batch_negatives(u, v, mask, temperature=0.3)
    scores = sklearn.metrics.pairwise.cosine_similarity(u[mask], v[mask]) / 0.3
    own = np.diagonal(scores)
    expected = (
        (scipy.special.logsumexp(scores, axis=1) - own)
        + (scipy.special.logsumexp(scores, axis=0) - own)
    ) / 2
    np.testing.assert_allclose(found[mask], expected, **CLOSE)
    swapped = sentence_losses.in_batch_negatives(v, u, mask, temperature=0.3)
    np.testing.assert_allclose(found[mask], swapped[mask], **CLOSE)

    def total(u):
        each = sentence_losses.in_batch_negatives(u, v, mask, temperature=0.3)
        return jnp.where(mask, each, 0).sum()

    grad = jax.grad(total)(u)
    np.testing.assert_allclose(grad, numeric_gradient(jax.jit(total), u), atol=2e-3)
    assert (grad[~mask] == 0).all()


def test_rows_without_a_pair_change_nothing(three):
    u, v, w = three
    mask = np.array([True, True, False, True, True, False, True])
    found = sentence_losses.in_batch_negatives(u, v, mask, temperature=0.05)
    other = np.where(mask[:, None], v, 1e3 * w)
    again = sentence_losses.in_batch_negatives(u, other, mask, temperature=0.05)
    np.testing.assert_array_equal(found[mask], again[mask])
    alone = np.arange(7) == 3  # one pair has nothing to be told from
    one = sentence_losses.in_batch_negatives(u, v, alone, temperature=0.05)
    np.testing.assert_allclose(one[3], 0, atol=1e-6)
    assert np.isfinite(one).all()


# Retrieval.


def test_ranks_are_those_of_scikit_learn(rng):
    u = rng.normal(size=(1031, 3))  # more than a block
    v = u + rng.normal(size=u.shape)
    ranks = retrieval.ranks(u, v)
    scores = sklearn.metrics.pairwise.cosine_similarity(u, v)
    found, truth = retrieval.summary(ranks), np.arange(len(u))
    for k in (1, 10):
        expected = sklearn.metrics.top_k_accuracy_score(truth, scores, k=k, labels=truth)
        assert found[f"recall_{k}"] == pytest.approx(expected, abs=2e-3)
    # with one right answer, its precision is 1 / rank
    some = slice(0, 211)
    expected = sklearn.metrics.label_ranking_average_precision_score(
        np.eye(len(u))[some], scores[some]
    )
    assert (1 / ranks[some]).mean() == pytest.approx(expected, abs=1e-3)


def test_one_embedding_for_all_finds_nothing():
    same = np.ones((13, 5))
    assert (retrieval.ranks(same, same) == 13).all()
    broken = same.copy()
    broken[4] = np.nan
    assert retrieval.summary(retrieval.ranks(broken, same))["recall_10"] == 0


def test_chance_is_that_of_a_random_order(rng):
    orders = np.concatenate([rng.permutation(17) + 1 for _ in range(4001)])
    for name, value in retrieval.summary(orders).items():
        assert retrieval.chance(17)[name] == pytest.approx(value, abs=1e-9)
    assert retrieval.chance(7)["recall_10"] == 1
