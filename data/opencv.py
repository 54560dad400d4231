"""OpenCV for training pictures: decoding at a reduced scale, resizing, flipping.

Pixels equal Pillow's, for both use libjpeg-turbo; OpenCV hands them over in the layout that arrays
have, and resizes in an eighth of the time. Evaluation keeps to Pillow (`perceiver/images.py`).
"""

import math

import cv2
import numpy as np
from PIL import Image

# Batches are built by many threads or processes already: OpenCV's own would only compete.
cv2.setNumThreads(1)

# Shrinking while decoding costs next to nothing: whole blocks of 8 × 8 become fewer pixels.
_REDUCED = {1: 0, 2: 16, 4: 32, 8: 64}  # divisor of the sides -> bits of cv2.IMREAD_REDUCED_*
# As stored: Pillow does not turn pictures by their EXIF orientation either.
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decodes(picture: Image.Image, channels: int) -> bool:
    """Tells whether `decode_crop` takes an opened picture: a JPEG of colour or grey to colour."""
    return picture.format == "JPEG" and picture.mode in ("RGB", "L") and channels == 3


def decode_crop(
    encoded: bytes, box: tuple[int, int, int, int], at_least: int
) -> np.ndarray | None:  # [H, W, 3] uint8
    """Returns the box (left, top, right, bottom) of a JPEG; None if it does not decode.

    A crop whose sides are at least twice, 4 or 8 times `at_least` comes at half, a quarter or an
    eighth of its resolution, its edges rounded to that grid.
    """
    left, top, right, bottom = box
    excess = min(right - left, bottom - top) / at_least
    divisor = max(d for d in _REDUCED if d == 1 or d <= excess)
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), _FLAGS | _REDUCED[divisor])
    if pixels is None:
        return None
    return pixels[top // divisor : -(-bottom // divisor), left // divisor : -(-right // divisor)]


def resize(pixels: np.ndarray, size: int) -> np.ndarray:  # [H, W, C] -> [S, S, C] uint8
    """Returns a picture at size × size: cubic, after a blur where it shrinks.

    OpenCV's cubic alone aliases when it shrinks. With a Gaussian over 3 × 3 pixels before it the
    result is within 43 to 46 dB of Pillow's antialiased bicubic for shrinking by 1.1 to 1.7, where
    without it (as TensorFlow's, which trained the released models) it falls from 45 to 34 dB.
    """
    height, width, channels = pixels.shape
    if (height, width) == (size, size):
        return pixels
    if max(height, width) > size:
        pixels = cv2.GaussianBlur(pixels, (3, 3), _blur(width / size), sigmaY=_blur(height / size))
    resized = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC)
    return resized.reshape(size, size, channels)  # OpenCV drops a single channel's axis


def mirror(pixels: np.ndarray) -> np.ndarray:  # [H, W, C]
    """Returns a picture with left and right exchanged."""
    return cv2.flip(pixels, 1).reshape(pixels.shape)


def _blur(shrink: float) -> float:
    """Returns the blur in pixels before shrinking by a factor; next to none when it enlarges."""
    return 0.5 * math.sqrt(max(shrink**2 - 1, 0.01))
