import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.objective import metrics


def accuracy(logits, labels, k=1, mask=None):
    labels = jnp.asarray(labels)
    mask = jnp.ones(labels.shape, bool) if mask is None else jnp.asarray(mask)
    right, weight = metrics.top_k(jnp.asarray(logits, jnp.float32), labels, mask, k=k)
    return float(right), float(weight)


@pytest.mark.parametrize("k", [1, 2, 5, 7])
@pytest.mark.parametrize("levels", [3, 10**6])  # with many ties, and with none
def test_top_k_accuracy_counts_labels_among_the_k_best(rng, k, levels):
    logits = rng.integers(levels, size=(11, 3, 7)).astype("f4")
    labels, mask = rng.integers(7, size=(11, 3)), rng.random((11, 3)) < 0.7
    _, best = jax.lax.top_k(logits, k)
    expected = ((np.asarray(best) == labels[..., None]).any(-1) & mask).sum()
    assert accuracy(logits, labels, k, mask) == (expected, mask.sum())


def test_top_1_is_argmax(rng):
    logits = rng.integers(3, size=(101, 5)).astype("f4")
    labels = rng.integers(5, size=101)
    assert accuracy(logits, labels)[0] == (logits.argmax(-1) == labels).sum()


def test_a_model_that_knows_nothing_is_not_always_right():
    assert accuracy(np.zeros((5, 5)), np.arange(5)) == (1.0, 5.0)


def test_nan_is_never_right():
    nan = np.nan
    logits = [[nan, 0.0, 1.0], [nan, 0.0, 1.0], [nan, nan, nan]]
    assert accuracy(logits, [0, 2, 1]) == (0.0, 3.0)
    assert accuracy(logits, [0, 2, 1], k=2) == (1.0, 3.0)
    assert accuracy(logits, [0, 2, 1], k=3) == (1.0, 3.0)


def test_a_class_that_does_not_exist_is_never_right():
    assert accuracy(np.zeros((3, 5)), [-1, 5, 4], k=5) == (1.0, 3.0)


@pytest.mark.parametrize("k", [0, 6])
def test_k_must_fit_the_classes(k):
    with pytest.raises(ValueError, match=rf"top-{k} accuracy of 5 classes: k must be in 1\.\.5"):
        accuracy(np.zeros((3, 5)), [0, 0, 0], k=k)


def test_bits():
    assert metrics.to_bits(np.log(262)) == pytest.approx(np.log2(262))
    np.testing.assert_allclose(metrics.to_bits(jnp.log(jnp.array([2.0, 8.0]))), [1, 3], rtol=1e-6)


def test_add_works_in_jit_and_keeps_pairs_apart():
    a = {"loss": (jnp.float32(3), jnp.float32(2)), "right": (jnp.float32(1), jnp.float32(5))}
    b = {"loss": (jnp.float32(10), jnp.float32(7)), "right": (jnp.float32(0), jnp.float32(11))}
    assert jax.jit(metrics.add)(a, b) == {"loss": (13, 9), "right": (1, 16)}


def test_add_refuses_other_names():
    with pytest.raises(ValueError, match=r"only one side has \['accuracy', 'loss'\]"):
        metrics.add({"loss": (1, 1), "x": (1, 1)}, {"accuracy": (1, 1), "x": (1, 1)})


def test_the_mean_over_ragged_batches_is_the_mean_over_examples(rng):
    values = rng.normal(size=101)
    batches = np.split(values, [13, 13, 50, 97])
    sums = [{"loss": (np.float32(b.sum()), np.float32(len(b)))} for b in batches]
    means = metrics.means(metrics.total(sums))
    assert means["loss"] == pytest.approx(values.mean(), rel=1e-6)


def test_total_keeps_counting_where_float32_would_stop():
    one = {"right": (jnp.float32(1), jnp.float32(1))}
    many = {"right": (jnp.float32(2**24), jnp.float32(2**24))}
    assert metrics.total([many, one, one, one]) == {"right": (2**24 + 3, 2**24 + 3)}


def test_total_reads_a_batch_only_when_the_next_one_is_under_way():
    asked, read = [], []

    class Scalar:
        def __init__(self, batch):
            self.batch = batch

        def __float__(self):
            read.append((self.batch, len(asked)))
            return 1.0

    def stream():
        for batch in range(3):
            asked.append(batch)
            yield {"loss": (Scalar(batch), 1)}

    metrics.total(stream())
    assert read == [(0, 2), (1, 3), (2, 3)]


def test_the_total_of_nothing_is_empty():
    assert metrics.total([]) == {}
    assert metrics.means({}) == {}


def test_a_metric_without_weight_has_no_mean():
    sums = {"loss": (jnp.float32(3), jnp.float32(2)), "rare": (jnp.float32(0), jnp.float32(0))}
    assert metrics.means(sums) == {"loss": 1.5}
