"""`noisy_digits`: the digits of `data.images.digits`, enlarged, under Gaussian noise.

Where every pixel is clear, it matters little who its neighbours are: a linear classifier reads the
digits too. Under noise it does, because a stroke shows only once neighbours are averaged. Training
draws new noise in every epoch; all evaluations of a run, which share its seed, see the same.
"""

import dataclasses
from typing import Any

import numpy as np

from data.dataset import Dataset, DatasetInfo, Example
from data.images import digits
from data.images.preprocessing import CentralCrop, Normalise
from data.transforms import Cast, Keep

NOISE = 0.5  # standard deviation, as a part of white


@dataclasses.dataclass(frozen=True)
class AddNoise:
    """Adds independent Gaussian noise to every value, and cuts nothing off."""

    deviation: float  # in the units of the image

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Replaces `image`, float32 [H, W, C]."""
        image = example["image"]
        noise = rng.standard_normal(image.shape, np.float32)
        return example | {"image": image + np.float32(self.deviation) * noise}


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split at `image_size`; nothing but the noise varies, so `train` changes nothing.

    Raises:
      ValueError: `augment` is not "none", or `channels` not 1.
    """
    del seed, train  # the order and the generators are those of `Batches`
    if config.augment != "none" or config.channels != 1:
        raise ValueError(
            f"noisy_digits are greyscale and not augmented: change data.augment={config.augment!r} "
            f'to "none" and data.channels={config.channels} to 1, or use data.source=digits'
        )
    whole = CentralCrop(config.image_size, config.channels, fraction=1.0)
    noise = (Normalise(digits.MEAN, digits.STD), AddNoise(NOISE / digits.STD[0]))
    finish = (Cast("label", np.int32), Keep(("image", "label")))
    return Dataset(digits.Digits(*digits.arrays(split)), (whole, *noise, *finish))


def info(config: Any) -> DatasetInfo:
    """Returns the facts of the digits, which these are."""
    return dataclasses.replace(digits.info(config), name="noisy_digits")
