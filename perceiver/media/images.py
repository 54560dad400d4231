"""Pictures -> model inputs, the same way in training, evaluation and use.

All resizing is Pillow's antialiased bicubic, once, from the crop to the model's size.
"""

import contextlib
import functools
import io
import math
import os
import pathlib
import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import ExifTags, Image, ImageOps

# Of ImageNet's training set, per channel, for values in [0, 1]; of the released evaluation.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_FRACTION = 224 / 256  # of the shorter side

Picture = Image.Image  # Pillow's
_MODES = {1: "L", 3: "RGB"}
# What is opened, whatever a file's name: for others Pillow runs other programs (Ghostscript).
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
# A picture of more is refused before it is decoded: a file of 1 MB may hold gigabytes of pixels.
MOST_PIXELS = int(os.environ.get("PERCEIVER_MOST_PIXELS", 100_000_000))
# Grey of more than 8 bits, which Pillow's `convert` would clip at 255.
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_16_BITS_AS_I = ("PNG", "PPM")  # formats whose 16 bits some versions of Pillow read as 32
# What Pillow's decoders raise when a file is no picture, damaged, cut short or absurdly large.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


class BrokenImage(ValueError):  # noqa: N818 - said of the picture, not of the program
    """A picture that does not decode, with the reason."""


def to_pil(
    image: bytes | np.ndarray | str | os.PathLike | Image.Image, channels: int
) -> Image.Image:
    """Returns a picture as a Pillow image of 1 (grey) or 3 channels, as viewers show it.

    It is turned by its EXIF orientation, what is transparent lies on white, and 16 bits of grey
    become the upper 8 of them. Encoded pictures that need nothing of this, and whose mode already
    fits, stay undecoded until `to_array` or `resize` needs their pixels (but a PNG, whose EXIF data
    may follow them).

    Args:
      image: encoded bytes, uint8 pixels [H, W, C'], a Pillow image, or a file.
      channels: 1 or 3.

    Raises:
      BrokenImage: a file or bytes that do not decode, or grey in 32 bits or floats, of which
        nothing says where white is.
      ValueError: other channels, or an array that is no picture.
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
        # Read at once: a file left open would stay open when it does not decode.
        what = f"{len(image)} bytes" if isinstance(image, bytes) else os.fspath(image)
        with _decoding(what):
            encoded = image if isinstance(image, bytes) else pathlib.Path(image).read_bytes()
            picture = Image.open(io.BytesIO(encoded), formats=_formats())
            if math.prod(picture.size) > MOST_PIXELS:
                raise ValueError(
                    f"{picture.size[0]:,} x {picture.size[1]:,} pixels are more than "
                    f"{MOST_PIXELS:,}; shrink it, or set PERCEIVER_MOST_PIXELS"
                )
        picture.filename = what
    opened, what, mode = picture, _described(picture), _MODES[channels]
    with _decoding(what):
        if orientation(picture.getexif) != 1:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode in _DEEP:
            picture = _of_8_bits(picture, opened.format)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            ground = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(ground, picture)
        if picture.mode != mode:
            picture = picture.convert(mode)
    if picture is not opened:
        picture.filename = what
    return picture


def to_array(picture: Image.Image) -> np.ndarray:  # [H, W, C] uint8
    """Returns a Pillow image as an array that always has a channel axis; errors as in `to_pil`."""
    with _decoding(_described(picture)):
        picture.load()
    array = np.asarray(picture)
    return array[..., None] if array.ndim == 2 else array


def resize(picture: Image.Image, size: tuple[int, int], box: tuple[int, ...]) -> np.ndarray:
    """Returns the box (left, top, right, bottom) at (height, width): uint8 [H, W, C].

    Raises:
      BrokenImage: the picture was still encoded, and does not decode.
    """
    height, width = size
    with _decoding(_described(picture)):
        picture.load()
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


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)  # AVIF is new


@functools.lru_cache
def _at_255(*parts: tuple[float, ...]) -> tuple[np.ndarray, ...]:  # each [C] float32
    return tuple(np.multiply(part, 255).astype(np.float32) for part in parts)


def orientation(read: Callable[[], Image.Exif]) -> int:
    """Returns the EXIF orientation; 1 is upright, also where what a camera wrote is damaged.

    Args:
      read: returns the EXIF data, or raises what Pillow does of damaged ones.
    """
    try:
        return read().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return 1


def _of_8_bits(picture: Image.Image, kind_of_file: str | None) -> Image.Image:
    """Returns the upper 8 of a picture's 16 bits of grey; ValueError if it may have others."""
    if picture.mode == "F" or (picture.mode == "I" and kind_of_file not in _16_BITS_AS_I):
        kind = "32-bit integers" if picture.mode == "I" else "floating-point numbers"
        raise ValueError(
            f"its grey values are {kind}, and nothing says which is white; scale them to 0...255 "
            "and save them with 8 bits, or to 0...65535 with 16"
        )
    return Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8))


@contextlib.contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Turns the errors of Pillow's decoders into BrokenImage."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no such image file: {what}") from error
    except _UNREADABLE as error:
        raise BrokenImage(f"cannot decode an image from {what}: {error}") from error


def _described(picture: Image.Image) -> str:
    return getattr(picture, "filename", "") or "memory"
