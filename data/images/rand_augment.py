"""RandAugment: a few operations, drawn at random, one after the other (Cubuk et al. 2019).

Facts of the released Perceiver (`perceiver/train/autoaugment.py`, `dataset.py`): operations are
drawn with replacement, all have one magnitude, and the signs of movements are drawn; probabilities
are drawn too, but never used, so that an operation always acts. It comes after crop and flip and
before the crop is resized, with strengths in pixels (shift, cutout) that do not depend on the
crop's size. At the papers' magnitude 5, half of the highest, colour, contrast, brightness and
sharpness have the factor 1.0 and change nothing: a quarter of the draws.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from data.dataset import Example
from data.images import rand_augment_operations as operations
from data.images.rand_augment_operations import Pixels

MAX_MAGNITUDE = 10
Operation = Callable[[Pixels, float, np.random.Generator], Pixels]


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Applies `layers` operations; the papers' are 4 of magnitude 5 (Perceiver IO, section A.1)."""

    layers: int
    magnitude: float  # 0 to 10

    def __post_init__(self):
        if self.layers < 0:
            raise ValueError(f"data.rand_augment_layers must be at least 0, got {self.layers}")
        if not 0 <= self.magnitude <= MAX_MAGNITUDE:
            raise ValueError(
                f"data.rand_augment_magnitude must be in 0..{MAX_MAGNITUDE}, got {self.magnitude}"
            )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes `image`, uint8 [H, W, C]."""
        image = np.ascontiguousarray(example["image"])
        for drawn in rng.integers(len(_ALL), size=self.layers):
            image = _ALL[drawn](image, self.magnitude / MAX_MAGNITUDE, rng)
        return example | {"image": image}


def _enhance(operation: Callable[[Pixels, float], Pixels]) -> Operation:
    return lambda pixels, strength, rng: operation(pixels, 0.1 + 1.8 * strength)


def _move(operation: Callable[[Pixels, float], Pixels], most: float) -> Operation:
    """Moves by `most` at full strength, one way or the other."""
    return lambda pixels, strength, rng: operation(pixels, _sign(rng) * strength * most)


def _shift(axis: int, most: int) -> Operation:
    """Shifts by `most` pixels at full strength along axis 0 or 1, one way or the other."""

    def shift(pixels: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
        pixels_away = _sign(rng) * round(strength * most)
        return operations.translate(pixels, *((pixels_away, 0) if axis == 0 else (0, pixels_away)))

    return shift


def _cutout(pixels: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    row, column = rng.integers(pixels.shape[:2]).tolist()
    return operations.cutout(pixels, (row, column), int(strength * 40))


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


# Name -> (pixels, strength in 0..1, rng) -> pixels.
OPERATIONS: dict[str, Operation] = {
    "autocontrast": lambda pixels, strength, rng: operations.autocontrast(pixels),
    "equalize": lambda pixels, strength, rng: operations.equalize(pixels),
    "invert": lambda pixels, strength, rng: operations.invert(pixels),
    "rotate": _move(operations.rotate, 30.0),  # degrees
    "posterize": lambda pixels, strength, rng: operations.posterize(pixels, int(strength * 4)),
    "solarize": lambda pixels, strength, rng: operations.solarize(pixels, int(strength * 256)),
    "color": _enhance(operations.color),
    "contrast": _enhance(operations.contrast),
    "brightness": _enhance(operations.brightness),
    "sharpness": _enhance(operations.sharpness),
    "shear_x": _move(operations.shear_x, 0.3),
    "shear_y": _move(operations.shear_y, 0.3),
    "translate_x": _shift(1, 100),
    "translate_y": _shift(0, 100),
    "cutout": _cutout,
    "solarize_add": lambda pixels, strength, rng: operations.solarize_add(
        pixels, int(strength * 110)
    ),
}
_ALL = tuple(OPERATIONS.values())
