"""Pictures -> model inputs, the same way in training, evaluation and use.

All resizing is Pillow's antialiased bicubic, once, from the crop to the model's size.
"""

import functools
import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

# Of ImageNet's training set, per channel, for values in [0, 1]; of the released evaluation.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_FRACTION = 224 / 256  # of the shorter side

_MODES = {1: "L", 3: "RGB"}


def to_pil(
    image: bytes | np.ndarray | str | os.PathLike | Image.Image, channels: int
) -> Image.Image:
    """Returns a picture as a Pillow image of 1 (grey) or 3 channels.

    Encoded pictures stay undecoded until pixels are needed when their mode already fits.

    Args:
      image: encoded bytes, uint8 pixels [H, W, C'], a Pillow image, or a file.
      channels: 1 or 3.

    Raises:
      ValueError: other channels, or something that is no picture.
      FileNotFoundError: no such file.
    """
    if channels not in _MODES:
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    if isinstance(image, Image.Image):
        picture = image
    elif isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in _MODES:
            raise ValueError(
                f"pixels must be uint8 [height, width, 1 or 3], got {image.dtype} {image.shape}"
            )
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    else:
        what = f"{len(image)} bytes" if isinstance(image, bytes) else os.fspath(image)
        try:
            picture = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"there is no image file {what}") from error
        except OSError as error:
            raise ValueError(f"cannot decode a picture from {what}: {error}") from error
    return picture if picture.mode == _MODES[channels] else picture.convert(_MODES[channels])


def to_array(picture: Image.Image) -> np.ndarray:  # [H, W, C] uint8
    """Returns a Pillow image as an array that always has a channel axis."""
    array = np.asarray(picture)
    return array[..., None] if array.ndim == 2 else array


def resize(picture: Image.Image, size: tuple[int, int], box: tuple[int, ...]) -> np.ndarray:
    """Returns the box (left, top, right, bottom) at (height, width): uint8 [H, W, C]."""
    height, width = size
    # Cut before resizing: `resize(box=...)` would filter in pixels from outside the box.
    return to_array(picture.crop(box).resize((width, height), Image.Resampling.BICUBIC))


def central_box(
    picture: Image.Image, fraction: float, aspect: float = 1.0
) -> tuple[int, int, int, int]:
    """Returns the largest central box of an aspect ratio (width / height), shrunk by a fraction.

    With 224 / 256 and a square this is the crop of the Perceivers' released evaluation.
    """
    width, height = picture.size
    full = min(height, width / aspect)  # height of the largest box
    box_height, box_width = max(1, int(fraction * full)), max(1, int(fraction * full * aspect))
    # The odd pixel goes to the left and the top, as in the released code.
    left, top = (width - box_width + 1) // 2, (height - box_height + 1) // 2
    return left, top, left + box_width, top + box_height


def normalise(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Returns (x - 255 mean) / (255 std) per channel: uint8 [..., C] -> float32 [..., C]."""
    offset, scale = _at_255(tuple(mean), tuple(std))
    return (pixels - offset) / scale


@functools.lru_cache
def _at_255(*parts: tuple[float, ...]) -> tuple[np.ndarray, ...]:  # each [C] float32
    return tuple(np.multiply(part, 255).astype(np.float32) for part in parts)
