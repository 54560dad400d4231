"""Transforms of frames: encoded ones in, one stack uint8 [..., S, S, 3] out.

What is drawn is drawn once for all frames of a clip: a crop, a flip or a colour that changed from
frame to frame would look like motion.
"""

import dataclasses
import math

import cv2
import numpy as np

from data.dataset import BrokenExample, Example
from data.images import opencv
from data.images.preprocessing import InceptionCrop

_LUMA = np.array([0.299, 0.587, 0.114])  # of ITU-R BT.601, as JPEG has it
# RGB -> brightness, and two axes of colour in which a hue is an angle (NTSC's YIQ).
_TO_YIQ = np.array([_LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


@dataclasses.dataclass(frozen=True)
class DecodeCrop:
    """Decodes the frames of a window, each once, and cuts all to the same box.

    A window is `places`, int [..., T], the frames' numbers, and `frames`, their JPEG files by
    number. A clip without frames is black.
    """

    size: int  # S
    random: InceptionCrop | None = None  # draws the box; None: the central square
    fraction: float = 224 / 256  # of the shorter side, which the central square keeps

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds `video`, uint8 [..., T, S, S, 3]."""
        frames, places = example["frames"], example["places"]
        if not frames:
            return example | {"video": np.zeros((*places.shape, self.size, self.size, 3), np.uint8)}
        wanted, inverse = np.unique(places, return_inverse=True)
        size = _frame_size(frames, wanted[0])
        box = self.random.box(size, rng) if self.random else central_box(size, self.fraction)
        # Straight into its place: windows that share no frames are never copied.
        decoded = np.empty((len(wanted), self.size, self.size, 3), np.uint8)
        for row, number in enumerate(wanted):
            if _frame_size(frames, number) != size:
                raise BrokenExample(
                    f"frame {number} has size {_frame_size(frames, number)}, other frames have "
                    f"{size}"
                )
            pixels = opencv.decode_crop(frames[number], box, at_least=self.size)
            if pixels is None:
                raise BrokenExample(
                    f"frame {number}, a JPEG of {len(frames[number])} bytes, cannot be decoded"
                )
            decoded[row] = opencv.resize(pixels, self.size)
        if not np.array_equal(inverse.ravel(), np.arange(len(wanted))):
            decoded = decoded[inverse.ravel()]
        return example | {"video": decoded.reshape(*places.shape, *decoded.shape[1:])}


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirrors left and right, all frames or none."""

    rate: float = 0.5

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Mirrors `video`, uint8 [T, H, W, 3]."""
        video = example["video"]
        if rng.random() >= self.rate:
            return example
        # One tall picture: OpenCV is called once.
        tall = video.reshape(-1, *video.shape[-2:])
        return example | {"video": cv2.flip(tall, 1).reshape(video.shape)}


@dataclasses.dataclass(frozen=True)
class Colour:
    """Changes brightness, contrast, saturation and hue of all frames alike, in one pass.

    Each of the four is linear in a pixel's colour, so that all together are one matrix and one
    offset. Contrast is about the mean brightness of the whole window. A hue turns about the axis of
    greys, which keeps the brightness of every pixel. Black stays black.
    """

    strength: float  # factors in 1 - strength .. 1 + strength; hue: a quarter of it, in turns

    def __post_init__(self):
        if not 0 <= self.strength <= 1:
            raise ValueError(f"data.colour must be in 0..1 (0: off), got {self.strength}")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes `video`, uint8 [T, H, W, 3]."""
        brightness, contrast, saturation, hue = rng.uniform(-self.strength, self.strength, 4)
        factors = (1 + brightness, 1 + contrast, 1 + saturation)
        return example | {"video": change_colour(example["video"], *factors, turn=hue / 4)}


def change_colour(
    video: np.ndarray, brightness: float, contrast: float, saturation: float, turn: float
) -> np.ndarray:  # [T, H, W, 3] uint8
    """Returns frames of another colour; the first three are factors, `turn` is of the hue.

    In this order, and limited to 0..255 once, at the end.
    """
    tall = video.reshape(-1, *video.shape[-2:])
    mean = brightness * np.dot(_LUMA, cv2.mean(tall)[:3])
    # Saturation and hue leave greys alone, so contrast's offset passes through them unchanged.
    matrix = brightness * contrast * _colour_matrix(saturation, turn)
    offset = np.full((3, 1), (1 - contrast) * mean)
    affine = np.concatenate([matrix, offset], axis=1).astype(np.float32)
    return cv2.transform(tall, affine).reshape(video.shape)


def central_box(size: tuple[int, int], fraction: float) -> tuple[int, int, int, int]:
    """Returns (left, top, right, bottom) of a central square in a picture of (width, height).

    The same pixels as `perceiver.media.images.central_box` takes of a photograph.
    """
    width, height = size
    side = max(1, int(fraction * min(size)))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    return left, top, left + side, top + side


def _colour_matrix(saturation: float, turn: float) -> np.ndarray:  # [3, 3]
    c, s = (saturation * f(2 * math.pi * turn) for f in (math.cos, math.sin))
    return _FROM_YIQ @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ _TO_YIQ


def _frame_size(frames: list[bytes], number: int) -> tuple[int, int]:
    size = opencv.jpeg_size(frames[number])
    if size is None:
        raise BrokenExample(f"frame {number}, {len(frames[number])} bytes, is not a colour JPEG")
    return size
