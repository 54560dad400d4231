import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data
from configs import digits
from train import experiment, tasks
from train.objective import mixing

B, HEIGHT, WIDTH, CHANNELS, CLASSES = 11, 13, 17, 3, 7
BOTH = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}
MIXUP, CUTMIX = {"mixup_alpha": 0.2}, {"cutmix_alpha": 1.0}
RTOL = 1e-6  # float32


@pytest.fixture
def batch(rng):
    return types.SimpleNamespace(
        images=rng.normal(size=(B, HEIGHT, WIDTH, CHANNELS)).astype("f4"),
        labels=np.arange(B, dtype="i4") % CLASSES,
        mask=np.ones(B, bool),
    )


def mix(key, batch, **alphas):
    run = jax.jit(functools.partial(mixing.mix, classes=CLASSES, **alphas))
    return [np.asarray(x) for x in run(key, batch.images, batch.labels, batch.mask)]


def partners(halfway):
    return np.concatenate([np.roll(np.arange(halfway), -1), np.roll(np.arange(halfway, B), -1)])


def shares(batch, distributions, partner):
    """The partner's weight in each label; the label pairs of these tests are of two classes."""
    assert (batch.labels != batch.labels[partner]).all()
    np.testing.assert_allclose(distributions.sum(axis=1), 1, rtol=RTOL)
    rows = np.arange(B)
    share = distributions[rows, batch.labels[partner]]
    np.testing.assert_allclose(distributions[rows, batch.labels], 1 - share, rtol=RTOL, atol=1e-7)
    return share


def boxes(batch, images, partner, row):
    """Which pixels of a row are the partner's; all others must be its own, bit for bit."""
    is_own = (images[row] == batch.images[row]).all(axis=-1)
    is_partners = (images[row] == batch.images[partner[row]]).all(axis=-1)
    assert (is_own ^ is_partners).all()
    return is_partners


def assert_mixup(batch, images, share, partner, rows):
    for row in rows:
        own, other = batch.images[row], batch.images[partner[row]]
        expected = (1 - share[row]) * own + share[row] * other
        np.testing.assert_allclose(images[row], expected, rtol=1e-5, atol=1e-6)


def assert_cutmix(batch, images, share, partner, rows):
    for row in rows:
        box = boxes(batch, images, partner, row)
        # the true area, of what is one rectangle
        assert round(share[row] * HEIGHT * WIDTH) == box.sum()
        np.testing.assert_allclose(share[row] * HEIGHT * WIDTH, box.sum(), rtol=RTOL)
        assert box.sum() == box.any(axis=1).sum() * box.any(axis=0).sum()
        assert (np.diff(np.flatnonzero(box.any(axis=1))) == 1).all()
        assert (np.diff(np.flatnonzero(box.any(axis=0))) == 1).all()


def test_mixup_is_the_weighted_mean_of_neighbours(batch, key):
    images, distributions, _ = mix(key, batch, **MIXUP)
    partner = partners(B)
    share = shares(batch, distributions, partner)
    assert_mixup(batch, images, share, partner, range(B))
    assert len(np.unique(share)) == B  # a ratio for each example


def test_cutmix_labels_are_the_true_areas(batch, key):
    for trial in jax.random.split(key, 20):
        images, distributions, _ = mix(trial, batch, **CUTMIX)
        assert_cutmix(
            batch, images, shares(batch, distributions, partners(B)), partners(B), [*range(B)]
        )


def test_both_mix_half_a_batch_each_and_partners_stay_within_it(batch, key):
    images, distributions, mask = mix(key, batch, **BOTH)
    partner = partners(6)  # of eleven, the first six
    share = shares(batch, distributions, partner)
    assert_mixup(batch, images, share, partner, range(6))
    assert_cutmix(batch, images, share, partner, range(6, B))
    assert mask.all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_ratios_are_beta_distributed(alpha, key):
    count = 20_000
    labels = np.arange(count) % 2
    _, distributions, _ = mixing.mix(
        key, jnp.zeros((count, 1, 1, 1)), labels, np.ones(count, bool), 2, mixup_alpha=alpha
    )
    share = np.asarray(distributions)[np.arange(count), 1 - labels]
    variance = 1 / (4 * (2 * alpha + 1))  # of Beta(alpha, alpha)
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))  # its central moment
    centred = share - 0.5
    for power, expected in [(1, 0.0), (2, variance), (3, 0.0), (4, fourth)]:
        values = centred**power
        assert abs(values.mean() - expected) < 5 * values.std() / count**0.5


def test_cutmix_boxes_are_uniform_in_area_and_place_before_clipping(key):
    # By an independent sampler, moments of area and position after clipping.
    count, side = 4000, 41
    pixels, share = mixing._boxes(key, (count, side, side), 1.0)
    rng = np.random.default_rng(7)
    reach = (np.sqrt(rng.random(count)) * side).astype(int) // 2
    centres = rng.integers(side, size=(2, count))
    low, high = np.maximum(centres - reach, 0), np.minimum(centres + reach, side)
    area = np.prod(high - low, axis=0) / side**2
    for ours, theirs in [
        (np.asarray(share), area),
        (np.asarray(share) ** 2, area**2),
        (np.asarray(pixels).any(axis=2).argmax(axis=1), np.where(reach > 0, low[0], 0)),
        (np.asarray(pixels)[:, 20, 20], ((low <= 20) & (high > 20)).all(axis=0)),
        (np.asarray(pixels)[:, 0, 40], (low[0] == 0) & (high[0] > 0) & (high[1] == side)),
    ]:
        error = np.hypot(np.std(ours), np.std(theirs)) / count**0.5
        assert abs(np.mean(ours) - np.mean(theirs)) < 5 * error


def test_what_is_broken_neither_gives_nor_takes(batch, key):
    batch.mask[[2, 6, 7]] = False
    batch.images[~batch.mask] = np.nan
    batch.labels[7] = -1
    images, distributions, mask = mix(key, batch, **BOTH)
    is_alone = ~batch.mask | ~batch.mask[partners(6)]
    np.testing.assert_array_equal(is_alone.nonzero()[0], [1, 2, 6, 7, 10])
    np.testing.assert_array_equal(images[is_alone], batch.images[is_alone])
    np.testing.assert_array_equal(mask, batch.mask)
    rows = is_alone & batch.mask
    np.testing.assert_array_equal(distributions[rows], np.eye(CLASSES)[batch.labels[rows]])
    assert np.isfinite(images[batch.mask]).all()
    assert np.isfinite(distributions[batch.mask]).all()
    assert (images[~is_alone] != batch.images[~is_alone]).any(axis=(1, 2, 3)).sum() >= 5


def test_a_label_out_of_range_is_not_lost_in_silence(batch, key):
    batch.labels[4] = CLASSES
    _, distributions, _ = mix(key, batch, **MIXUP)
    assert np.isnan(distributions[3:5]).all(axis=1).sum() >= 1
    assert np.isnan(distributions[4]).all()


def test_off_changes_no_bit(batch, key):
    images, distributions, mask = mix(key, batch)
    np.testing.assert_array_equal(images, batch.images)
    np.testing.assert_array_equal(distributions, np.eye(CLASSES, dtype="f4")[batch.labels])
    np.testing.assert_array_equal(mask, batch.mask)


def test_one_example_stays_as_it_is(batch, key):
    for alphas in (BOTH, MIXUP, CUTMIX):
        run = functools.partial(mixing.mix, key, classes=CLASSES, **alphas)
        images, distributions, _ = run(batch.images[:1], batch.labels[:1], batch.mask[:1])
        np.testing.assert_allclose(images, batch.images[:1], rtol=RTOL, atol=1e-7)
        np.testing.assert_allclose(distributions.sum(), 1, rtol=RTOL)


def test_no_gradient_flows(batch, key):
    def total(images):
        mixed, distributions, _ = mixing.mix(key, images, batch.labels, batch.mask, CLASSES, **BOTH)
        return mixed.sum() + distributions.sum()

    assert not jax.jit(jax.grad(total))(batch.images).any()


def test_normalising_before_mixing_is_normalising_after(batch, key):
    mean, deviation = np.float32([0.3, 0.5, 0.7]), np.float32([0.2, 0.3, 0.25])
    mixed, _, _ = mix(key, batch, **BOTH)
    batch.images = (batch.images - mean) / deviation
    np.testing.assert_allclose(
        mix(key, batch, **BOTH)[0], (mixed - mean) / deviation, rtol=1e-4, atol=1e-5
    )


def test_each_replica_mixes_its_own_examples(batch, key):
    copies = np.stack([batch.images] * 8), np.stack([batch.labels] * 8), np.stack([batch.mask] * 8)
    run = jax.pmap(functools.partial(mixing.mix, classes=CLASSES, **BOTH))
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(8))
    images, distributions, _ = run(keys, *copies)
    alone = mix(keys[5], batch, **BOTH)
    np.testing.assert_allclose(images[5], alone[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(distributions[5], alone[1], rtol=RTOL, atol=1e-7)
    assert (distributions[4] != distributions[5]).any()


def test_micro_batches_of_odd_size_are_mixed_one_by_one(batch, key):
    pieces = [x[:10].reshape(2, 5, *x.shape[1:]) for x in vars(batch).values()]
    keys = jax.random.split(key, 2)
    run = functools.partial(mixing.mix, classes=CLASSES, **BOTH)
    _, (images, distributions, _) = jax.jit(
        lambda *piles: jax.lax.scan(lambda _, piece: (None, run(*piece)), None, piles)
    )(keys, *pieces)
    for piece in range(2):
        alone = jax.jit(run)(keys[piece], *(x[piece] for x in pieces))
        np.testing.assert_allclose(images[piece], alone[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(distributions[piece], alone[1], rtol=RTOL, atol=1e-7)


def smoke(**changes):
    c = digits.get_config("fourier,smoke")
    c.placement = "single"
    c.update_from_flattened_dict(changes)
    return c


@pytest.mark.parametrize("field", ["mixup_alpha", "cutmix_alpha"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_bad_alpha_is_named(field, value):
    with pytest.raises(ValueError, match=f"loss.{field}={value} must be finite and at least 0"):
        experiment.make(smoke(**{f"loss.{field}": value}))


def test_the_task_mixes_in_training_only_and_scores_the_larger_part(key):
    c = smoke(**{"loss.mixup_alpha": 0.2, "loss.cutmix_alpha": 1.0, "loss.label_smoothing": 0.1})
    info = data.info(c.data)
    task, plain = tasks.make(c, info), tasks.make(smoke(**{"loss.label_smoothing": 0.1}), info)
    batch = next(data.load(c.data, "train", batch_size=13, seed=0, train=True))
    params, state = jax.jit(task.model.init)(key)
    params = jax.tree.map(lambda x: x + 0.1, params)  # a fresh head is 0

    def sums(task, batch, is_training):
        run = functools.partial(task.loss, is_training=is_training)
        return jax.jit(run)(params, state, key, batch)[0]

    for name, value in sums(task, batch, False).items():
        np.testing.assert_array_equal(value, sums(plain, batch, False)[name])

    for_mixing, _ = jax.random.split(key)
    images, distributions, _ = mixing.mix(
        for_mixing, batch["image"], batch["label"], batch["mask"], 10, **BOTH
    )
    logits, _ = jax.jit(task.model.apply)(params, state, None, batch | {"image": images})
    smooth = 0.9 * np.asarray(distributions) + 0.1 / 10
    expected = -(smooth * np.asarray(jax.nn.log_softmax(logits))).sum()
    actual = sums(task, batch, True)
    np.testing.assert_allclose(actual["loss"], (expected, 13), rtol=1e-5)
    right = (np.argmax(logits, axis=1) == np.argmax(distributions, axis=1)).sum()
    assert actual["accuracy"] == (right, 13)
