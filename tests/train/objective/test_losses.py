import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.objective import losses

RTOL = 1e-5  # float32


@pytest.fixture
def logits(rng):
    return (5 * rng.normal(size=(5, 3, 7))).astype("f4")


@pytest.fixture
def labels(rng):
    return rng.integers(7, size=(5, 3))


def cross_entropy64(logits, distribution):
    """The definition, in float64."""
    logits = np.asarray(logits, np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -(distribution * log_probabilities).sum(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classes_and_their_one_hot_distributions_give_the_definition(logits, labels, smoothing):
    one_hot = np.eye(7)[labels]
    expected = cross_entropy64(logits, (1 - smoothing) * one_hot + smoothing / 7)
    by_class = losses.softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
    by_distribution = losses.softmax_cross_entropy(logits, one_hot, label_smoothing=smoothing)
    np.testing.assert_allclose(by_class, expected, rtol=RTOL)
    np.testing.assert_allclose(by_distribution, expected, rtol=RTOL)


def test_mixed_labels_and_their_gradient_are_those_of_optax(logits, rng):
    mixed = rng.dirichlet(np.ones(7), size=(5, 3)).astype("f4")
    (ours, our_gradient), (theirs, their_gradient) = (
        jax.value_and_grad(lambda x, loss=loss: loss(x, mixed).sum())(logits)
        for loss in (losses.softmax_cross_entropy, optax.softmax_cross_entropy)
    )
    np.testing.assert_allclose(ours, theirs, rtol=RTOL)
    np.testing.assert_allclose(our_gradient, their_gradient, atol=1e-6)


def test_the_gradient_is_softmax_minus_the_smoothed_label(logits, labels):
    gradient = jax.grad(
        lambda x: losses.softmax_cross_entropy(x, labels, label_smoothing=0.1).sum()
    )(logits)
    expected = jax.nn.softmax(logits) - (0.9 * np.eye(7)[labels] + 0.1 / 7)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_equal_logits_cost_the_entropy_of_a_guess():
    loss = losses.softmax_cross_entropy(jnp.zeros((2, 262)), jnp.array([0, 261]))
    np.testing.assert_allclose(loss, np.log(262), rtol=RTOL)


def test_bfloat16_logits_lose_nothing_more(logits, labels):
    rounded = jnp.asarray(logits, jnp.bfloat16)
    loss = losses.softmax_cross_entropy(rounded, labels, label_smoothing=0.1)
    exact = losses.softmax_cross_entropy(rounded.astype("f4"), labels, label_smoothing=0.1)
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, exact)


@given(shift=st.floats(-1e4, 1e4), scale=st.floats(0, 50))
def test_a_common_shift_changes_nothing_and_large_logits_stay_finite(shift, scale):
    logits = np.array([[3.0, -1.0, 0.5], [0.0, 2.0, -2.0]], "f4") * np.float32(scale)
    labels = np.array([1, 2])
    base = losses.softmax_cross_entropy(logits, labels)
    moved = losses.softmax_cross_entropy(logits + np.float32(shift), labels)
    assert np.all(np.isfinite(moved))
    # The shifted logits themselves are rounded to a few units of 1e4 * 2^-24.
    np.testing.assert_allclose(moved, base, rtol=RTOL, atol=1e-2)


@pytest.mark.parametrize("label", [-1, 7, -8, 10**6])
def test_a_class_that_does_not_exist_poisons_its_own_loss_only(label):
    loss = losses.softmax_cross_entropy(jnp.zeros((2, 7)), jnp.array([label, 6]))
    assert np.isnan(loss[0])
    np.testing.assert_allclose(loss[1], np.log(7), rtol=RTOL)


@pytest.mark.parametrize("label", [-1, 7])
def test_under_a_mask_such_a_class_harms_neither_loss_nor_gradient(label):
    def loss(logits):
        values = losses.softmax_cross_entropy(logits, jnp.array([label, 6]))
        return losses.masked_sum(values, jnp.array([False, True]))[0]

    value, gradient = jax.value_and_grad(loss)(jnp.zeros((2, 7)))
    assert float(value) == pytest.approx(np.log(7))
    np.testing.assert_array_equal(gradient[0], np.zeros(7))
    np.testing.assert_allclose(gradient[1], np.full(7, 1 / 7) - np.eye(7)[6], atol=1e-6)


def test_masked_sum_counts_what_the_mask_shows():
    values = jnp.array([[1.0, jnp.nan, 3.0], [jnp.inf, 5.0, 7.0]], jnp.bfloat16)
    mask = jnp.array([[True, False, True], [False, True, False]])
    total, weight = losses.masked_sum(values, mask)
    assert (float(total), float(weight)) == (9.0, 3.0)
    assert total.dtype == weight.dtype == jnp.float32


def test_masked_sums_of_parts_add_up_to_that_of_the_whole(rng):
    values, mask = rng.normal(size=(11, 3)).astype("f4"), rng.random((11, 3)) < 0.5
    whole = losses.masked_sum(values, mask)
    parts = [losses.masked_sum(values[part], mask[part]) for part in np.split(np.arange(11), [4])]
    np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=RTOL)


def test_an_empty_mask_weighs_nothing():
    assert losses.masked_sum(jnp.ones(3), jnp.zeros(3, bool)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.softmax_cross_entropy(jnp.zeros((5, 7)), jnp.zeros(3, int)), r"\(3,\)"),
        (lambda: losses.softmax_cross_entropy(jnp.zeros((5, 7)), jnp.zeros((5, 3))), r"\(5, 3\)"),
        (
            lambda: losses.softmax_cross_entropy(
                jnp.zeros((5, 7)), jnp.zeros(5, int), label_smoothing=1.0
            ),
            "label_smoothing=1.0",
        ),
        (lambda: losses.masked_sum(jnp.ones(3), jnp.ones(3)), "must be bool .* got float32"),
        (lambda: losses.masked_sum(jnp.ones((3, 2)), jnp.ones(3, bool)), r"\(3, 2\).*\(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.fixture
def tags(rng):
    return rng.random((5, 3, 7)) < 0.4


def test_sigmoid_cross_entropy_is_optax_mean_over_classes(logits, tags):
    expected = optax.sigmoid_binary_cross_entropy(logits, tags.astype("f4")).mean(-1)
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(logits, tags), expected, rtol=RTOL)


def test_the_loss_of_averaged_scores_is_that_of_its_definition(logits, tags):
    views = logits.astype(np.float64)  # [V, B, K]
    mean = (1 / (1 + np.exp(-views))).mean(axis=0)
    expected = -np.where(tags[0], np.log(mean), np.log(1 - mean)).mean(-1)
    found = losses.averaged_sigmoid_cross_entropy(jnp.asarray(logits), tags[0])
    np.testing.assert_allclose(found, expected, rtol=RTOL)


def test_one_view_is_its_own_average(logits, tags):
    np.testing.assert_allclose(
        losses.averaged_sigmoid_cross_entropy(jnp.asarray(logits[:1]), tags[0]),
        losses.sigmoid_cross_entropy(logits[0], tags[0]),
        rtol=RTOL,
    )


def test_sure_and_wrong_tags_have_finite_losses_and_gradients():
    logits = jnp.array([[200.0, -200.0, 1e4]])
    tags = jnp.array([[False, True, True]])
    functions = (
        lambda x: losses.sigmoid_cross_entropy(x, tags)[0],
        lambda x: losses.averaged_sigmoid_cross_entropy(x[None], tags)[0],
    )
    for function in functions:
        value, gradient = jax.value_and_grad(function)(logits)
        assert float(value) == pytest.approx(400 / 3)
        np.testing.assert_allclose(gradient, [[1 / 3, -1 / 3, 0]], atol=1e-6)


def test_tags_of_another_shape_or_dtype_are_refused(logits, tags):
    for wrong in (tags[0], tags.astype(int)):
        with pytest.raises(ValueError, match="labels must be bool of shape"):
            losses.sigmoid_cross_entropy(logits, wrong)
    with pytest.raises(ValueError, match="labels must be bool of shape"):
        losses.averaged_sigmoid_cross_entropy(logits, tags)
