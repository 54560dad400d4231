"""What all sets of encoded, labelled pictures share: from a source to normalised float32 pixels."""

import os
from typing import Any

import numpy as np

from data.dataset import Dataset, Source
from data.images import preprocessing
from data.transforms import Cast, Keep
from perceiver.media.images import IMAGENET_MEAN, IMAGENET_STD

# Of the shorter side of a photograph, which evaluation keeps.
PHOTOGRAPH_CROP = 224 / 256

_MAX_THREADS = 16


def dataset(source: Source, config: Any, *, train: bool, crop_fraction: float) -> Dataset:
    """Returns pictures of one size: augmented in training, cropped at the centre otherwise.

    Args:
      source: of examples {"image": bytes, "label": int}.
      config: the `data` section of a config.
      train: whether to augment as the config says.
      crop_fraction: of the shorter side, which evaluation keeps.
    """
    size, channels = config.image_size, config.channels
    evaluation = (preprocessing.CentralCrop(size, channels, crop_fraction),)
    random = (config.rand_augment_layers, config.rand_augment_magnitude, config.crop_area)
    augmentation = preprocessing.augmentation(config.augment, size, channels, *random)
    geometry = augmentation if train and augmentation else evaluation
    normalise = preprocessing.Normalise(*statistics(channels))
    finish = (normalise, Cast("label", np.int32), Keep(("image", "label")))
    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    return Dataset(source, (*geometry, *finish), threads)


def statistics(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation: ImageNet's for colour, plain [-1, 1] for grey."""
    if channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return (0.5,), (0.5,)
