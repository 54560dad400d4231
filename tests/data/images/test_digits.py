import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

import data
from data.images import digits


def test_split_is_fixed_stratified_and_complete():
    labels = load_digits().target
    train, held_out = (digits.split_indices(labels, split) for split in data.SPLITS)
    assert (len(train), len(held_out)) == (1198, 599)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(1797))
    share = np.bincount(labels[held_out]) - np.bincount(labels) / 3
    assert np.abs(share).max() <= 1
    # Published accuracies belong to this very split.
    digest = hashlib.sha256(held_out.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "586c4f631628c38b"


def test_no_picture_is_in_both_splits():
    train, held_out = ({x.tobytes() for x in digits.arrays(split)[0]} for split in data.SPLITS)
    assert not train & held_out


def test_pixels_and_statistics():
    pixels, labels = digits.arrays("train")
    assert (pixels.dtype, labels.dtype) == (np.uint8, np.int32)
    assert (pixels.min(), pixels.max()) == (0, 255)
    np.testing.assert_allclose((pixels / 255).mean(), digits.MEAN[0], atol=5e-6)
    np.testing.assert_allclose((pixels / 255).std(), digits.STD[0], atol=5e-6)


def test_training_batches_are_normalised(make_config):
    batches = data.load(make_config(), "train", batch_size=1198, seed=0, train=True)
    batch = next(batches)
    batches.close()
    assert batch["image"].dtype == np.float32
    np.testing.assert_allclose(batch["image"].mean(), 0, atol=1e-4)
    np.testing.assert_allclose(batch["image"].std(), 1, atol=1e-4)


@pytest.mark.parametrize("augment", ["none", "digits", "inception"])
@pytest.mark.parametrize("train", [True, False])
def test_any_size_and_channels(make_config, augment, train):
    config = make_config(image_size=29, channels=3, augment=augment)
    batches = data.load(config, "train", batch_size=2, seed=0, train=train)
    image = next(batches)["image"]
    batches.close()
    assert image.shape == (2, *data.info(config).image_shape) == (2, 29, 29, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_augmentation_touches_training_alone(make_config):
    def first(augment, train):
        config = make_config(augment=augment)
        batches = data.load(config, "train", batch_size=31, seed=0, train=train)
        image = next(batches)["image"]
        batches.close()
        return image

    assert (first("digits", True) != first("none", True)).any()
    np.testing.assert_array_equal(first("digits", False), first("none", False))


def test_info(make_config):
    info = data.info(make_config(channels=3))
    assert info.name == "digits"
    assert info.examples == {"train": 1198, "validation": 599}
    assert info.labels == tuple("0123456789")
    assert info.mean == digits.MEAN * 3
