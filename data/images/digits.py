"""`digits`: 1,797 real handwritten digits of 8 × 8 pixels, embedded in scikit-learn.

They are the test part of the UCI "Optical Recognition of Handwritten Digits" data, scanned from
13 writers. Pixels of 0..16 become uint8 0..255. The split is fixed and stratified: within each
digit the examples are shuffled by a frozen generator, and every third one is held out, which
makes 1,198 examples for training and 599 for validation, with at most one too many or too few
of any digit.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from data.dataset import Dataset, DatasetInfo, Example
from data.images import preprocessing
from data.transforms import Cast, Keep

# Mean and standard deviation of the training split's pixels, as parts of 255.
MEAN, STD = (0.30584,), (0.37619,)


@dataclasses.dataclass(frozen=True, eq=False)
class Digits:
    """Random access to images [N, 8, 8, 1] uint8 and labels [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def example(self, index: int, epoch: int) -> Example:
        """Returns one digit, the same in every epoch."""
        return {"image": self.images[index], "label": self.labels[index]}


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split; `image_size` other than 8 resizes, `channels` 3 repeats the grey value."""
    size, channels = config.image_size, config.channels
    evaluation = (preprocessing.CentralCrop(size, channels, fraction=1.0),)
    random = (config.rand_augment_layers, config.rand_augment_magnitude, config.crop_area)
    augmentation = preprocessing.augmentation(config.augment, size, channels, *random)
    geometry = augmentation if train and augmentation else evaluation
    facts = info(config)
    normalise = preprocessing.Normalise(facts.mean, facts.std)
    finish = (normalise, Cast("label", np.int32), Keep(("image", "label")))
    return Dataset(Digits(*arrays(split)), (*geometry, *finish))


def info(config: Any) -> DatasetInfo:
    """Returns the facts; class names are the digits themselves."""
    return DatasetInfo(
        name="digits",
        examples={split: len(arrays(split)[1]) for split in ("train", "validation")},
        labels=tuple("0123456789"),
        image_shape=(config.image_size, config.image_size, config.channels),
        mean=MEAN * config.channels,
        std=STD * config.channels,
    )


@functools.cache
def arrays(split: str) -> tuple[np.ndarray, np.ndarray]:  # [N, 8, 8, 1] uint8, [N] int32
    """Returns images and labels of "train" or "validation"."""
    # scikit-learn takes a second to import: only runs on this data pay for it.
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = raw.target.astype(np.int32)
    index = split_indices(labels, split)
    return pixels[index], labels[index]


def split_indices(labels: np.ndarray, split: str) -> np.ndarray:  # [N] -> [N of the split]
    """Returns the examples of a split, in their original order."""
    # RandomState's stream is frozen for ever (NEP 19), a Generator's may change with numpy.
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_label = np.lexsort((shuffled, labels))
    held_out = np.zeros(len(labels), bool)
    held_out[by_label[2::3]] = True
    return np.flatnonzero(held_out if split == "validation" else ~held_out)
