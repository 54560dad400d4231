import numpy as np
import pytest

import data
from data.images import digits, noisy_digits


def load(config, *, train, seed=0, count=599):
    batches = data.load(config, "validation", batch_size=count, seed=seed, train=train)
    first, second = next(batches)["image"], next(batches)["image"] if train else None
    batches.close()
    return first, second


@pytest.fixture
def noisy(make_config):
    return make_config(source="noisy_digits", image_size=8)


def test_noise_is_white_and_as_strong_as_stated(noisy, make_config):
    (noise, _), (clear, _) = load(noisy, train=False), load(make_config(), train=False)
    noise = (noise - clear) * digits.STD[0]  # as a part of white
    np.testing.assert_allclose(noise.std(), noisy_digits.NOISE, rtol=0.02)
    np.testing.assert_allclose(noise.mean(), 0, atol=0.01)
    across = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    between = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    assert abs(across) < 0.02
    assert abs(between) < 0.02


def test_an_evaluation_sees_the_same_noise_and_training_does_not(noisy):
    np.testing.assert_array_equal(load(noisy, train=False)[0], load(noisy, train=False)[0])
    first, second = (np.sort(epoch, axis=0) for epoch in load(noisy, train=True))
    assert (first != second).mean() > 0.99  # two epochs, whatever their order


def test_pictures_grow(make_config):
    config = make_config(source="noisy_digits", image_size=16)
    image, _ = load(config, train=False, count=2)
    assert image.shape == (2, 16, 16, 1) == (2, *data.info(config).image_shape)
    assert data.info(config).name == "noisy_digits"


@pytest.mark.parametrize("fields", [{"augment": "inception"}, {"channels": 3}])
def test_what_does_not_go_with_noise_is_an_error(make_config, fields):
    config = make_config(source="noisy_digits", **fields)
    with pytest.raises(ValueError, match="noisy_digits are greyscale and not augmented: change"):
        data.load(config, "train", batch_size=2, seed=0, train=True)
