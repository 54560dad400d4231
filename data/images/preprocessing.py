"""Transforms for pictures: encoded bytes or uint8 arrays in, float32 [H, W, C] out.

A crop takes its box from the header of the encoded picture, which is decoded once, when its pixels
are needed. Evaluation resizes by Pillow's antialiased bicubic, training by OpenCV's.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from data.dataset import BrokenExample, Example, Transform
from data.images import opencv
from data.images.rand_augment import RandAugment
from perceiver.media.images import BrokenImage, central_box, resize, to_array, to_pil

AUGMENTATIONS = ("none", "digits", "inception")  # choices of config.data.augment


def augmentation(
    name: str,
    size: int,
    channels: int,
    rand_augment_layers: int = 0,
    magnitude: float = 5,
    crop_area: tuple[float, float] = (0.08, 1.0),
) -> tuple[Transform, ...] | None:
    """Returns the training transforms of a named augmentation; None: as in evaluation.

    Args:
      name: one of `AUGMENTATIONS`.
      size: of the model's input.
      channels: of the model's input.
      rand_augment_layers: operations of RandAugment after crop and flip; 0 for none.
      magnitude: of these, 0 to 10.
      crop_area: the least and the largest share of a picture that a crop keeps.

    Raises:
      ValueError: an unknown name, a bad number, or RandAugment without a crop.
    """
    random = (RandAugment(rand_augment_layers, magnitude),) if rand_augment_layers else ()
    if name == "inception":
        # In the released order: what follows the crop sees its own resolution.
        crop = InceptionCrop(size, channels, tuple(crop_area))
        return (crop, RandomFlip(), *random, Resize(size))
    if random and name in AUGMENTATIONS:
        raise ValueError(
            f"data.rand_augment_layers {rand_augment_layers} cannot be combined with data.augment "
            f'{name!r}: set data.augment="inception", or data.rand_augment_layers=0'
        )
    if name == "none":
        return None
    if name == "digits":
        whole = CentralCrop(size, channels, fraction=1.0)
        return (whole, RandomAffine(shift=0.1, rotation=15.0, scale=0.1))
    raise ValueError(f"data.augment {name!r} is unknown: choose one of {AUGMENTATIONS}")


@dataclasses.dataclass(frozen=True)
class Decode:
    """Turns encoded bytes into uint8 [H, W, C], without a crop or a resize."""

    channels: int

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Replaces `image`, bytes, by its pixels."""
        with _decoding():
            return example | {"image": to_array(to_pil(example["image"], self.channels))}


@dataclasses.dataclass(frozen=True)
class CentralCrop:
    """The evaluation crop: a central square of the shorter side, resized to size × size.

    With 224 / 256 (the default) this is the crop of the Perceivers' released evaluation.
    """

    size: int
    channels: int
    fraction: float = 224 / 256  # of the shorter side

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Replaces `image`, bytes or uint8 [H, W, C'], by uint8 [S, S, C]."""
        image = example["image"]
        whole = (self.size, self.size, self.channels)
        if self.fraction == 1 and not isinstance(image, bytes) and image.shape == whole:
            return example  # nothing to do, at a tenth of the time that Pillow takes to do it
        with _decoding():
            picture = to_pil(image, self.channels)
            box = central_box(picture, self.fraction)
            return example | {"image": resize(picture, (self.size, self.size), box)}


@dataclasses.dataclass(frozen=True)
class InceptionCrop:
    """A random rectangle (Szegedy et al. 2015; Perceiver, section 4.1), to be resized later.

    Its share of the area is uniform, the logarithm of its width / height is uniform; if no attempt
    fits into the picture, the largest central square is taken.
    """

    size: int  # that it will be resized to: far larger crops of a JPEG come at lower resolution
    channels: int
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    attempts: int = 10

    def __post_init__(self):
        if not (len(self.area) == 2 and 0 < self.area[0] <= self.area[1] <= 1):
            raise ValueError(
                f"data.crop_area {self.area} must be (smallest, largest) with "
                "0 < smallest <= largest <= 1, such as (0.08, 1.0)"
            )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Replaces `image`, bytes or uint8 [H, W, C'], by uint8 [H', W', C]."""
        image, pixels = example["image"], None
        size = opencv.jpeg_size(image) if self.channels == 3 else None
        if size is not None:
            box = self.box(size, rng)
            pixels = opencv.decode_crop(image, box, at_least=self.size)
        if pixels is None:  # another format, or a damaged file: Pillow says how
            with _decoding():
                picture = to_pil(image, self.channels)
                left, top, right, bottom = self.box(picture.size, rng)
                pixels = to_array(picture)[top:bottom, left:right]
        return example | {"image": pixels}

    def box(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draws (left, top, right, bottom) in a picture of (width, height)."""
        width, height = size
        for _ in range(self.attempts):
            area = rng.uniform(*self.area) * width * height
            ratio = math.exp(rng.uniform(*map(math.log, self.ratio)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left = int(rng.integers(width - w, endpoint=True))
                top = int(rng.integers(height - h, endpoint=True))
                return left, top, left + w, top + h
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


@dataclasses.dataclass(frozen=True)
class Resize:
    """Resizes to size × size, fast; see `opencv.resize`."""

    size: int

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Replaces `image`, uint8 [H, W, C], by uint8 [S, S, C]."""
        return example | {"image": opencv.resize(example["image"], self.size)}


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Mirrors left and right."""

    rate: float = 0.5

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Mirrors `image`, uint8 [H, W, C]."""
        image = example["image"]  # [H, W, C]
        return example | {"image": opencv.mirror(image) if rng.random() < self.rate else image}


@dataclasses.dataclass(frozen=True)
class RandomAffine:
    """A small random shift, rotation and zoom about the centre; black comes in from outside.

    By cubic splines, which keep small pictures sharp: with bilinear interpolation a model trains on
    blurred digits and errs on sharp ones (held-out accuracy 96.5 % at best instead of 98 %).
    """

    shift: float  # at most this part of the side, each way
    rotation: float  # at most this many degrees, each way
    scale: float  # zoom in 1 - scale .. 1 + scale

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Moves the content of `image`, uint8 [H, W, C]."""
        image = example["image"]  # [H, W, C] uint8
        dy, dx, turn, zoom = rng.uniform(-1, 1, 4).tolist()
        angle = math.radians(turn * self.rotation)
        zoom = 1 + zoom * self.scale
        # SciPy wants the inverse map of (row, column): input = matrix @ output + offset.
        c, s = math.cos(angle) / zoom, math.sin(angle) / zoom
        y, x = (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2
        moved_y, moved_x = (
            y + dy * self.shift * image.shape[0],
            x + dx * self.shift * image.shape[1],
        )
        offset = (y - c * moved_y - s * moved_x, x + s * moved_y - c * moved_x)
        warped = np.empty(image.shape, np.float32)
        for channel in range(image.shape[-1]):
            ndimage.affine_transform(
                image[..., channel].astype(np.float32),
                ((c, s), (-s, c)),
                offset,
                output=warped[..., channel],
                order=3,
                mode="grid-constant",  # "constant" would drop border pixels to rounding errors
            )
        return example | {"image": np.clip(np.round(warped), 0, 255).astype(np.uint8)}


@dataclasses.dataclass(frozen=True)
class Normalise:
    """Scales uint8 pixels: (x - 255 * mean) / (255 * std), float32, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Replaces `image`, uint8 [..., C], by float32 of the same shape."""
        return example | {"image": opencv.normalise(example["image"], self.mean, self.std)}


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Tells a picture that does not decode from an error of the program."""
    try:
        yield
    except BrokenImage as error:
        raise BrokenExample(str(error)) from error
