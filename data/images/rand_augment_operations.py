"""The 16 operations of RandAugment (Cubuk et al. 2019) of the released Perceiver.

Each is a function of uint8 pixels [H, W, C], C = 1 or 3, and of its strength, and gives what
Pillow gives. What depends on single values alone goes through a table of 256 entries.

The released contrast, meant to be Pillow's, blends with a grey that grows with the area of the
picture; here it is Pillow's. At the papers' magnitude neither changes anything.
"""

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageEnhance

Pixels = np.ndarray  # [H, W, C] uint8

GREY = 128  # comes in where a picture has moved away
_VALUES = np.arange(256)


def autocontrast(pixels: Pixels) -> Pixels:
    """Stretches each channel to the full range; a constant channel stays."""
    tables = []
    for histogram in _histograms(pixels):
        low, high = np.flatnonzero(histogram)[[0, -1]]
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        tables.append(np.clip((_VALUES * scale + offset).astype(int), 0, 255))
    return _through(tables, pixels)


def equalize(pixels: Pixels) -> Pixels:
    """Makes each channel's histogram flat, as far as integers allow."""
    tables = []
    for histogram in _histograms(pixels):
        # The brightest value that occurs is left out, so that it becomes 255.
        step = (histogram.sum() - histogram[np.flatnonzero(histogram)[-1]]) // 255
        below = np.cumsum(histogram) - histogram  # pixels darker than each value
        tables.append(np.minimum((below + step // 2) // step, 255) if step else _VALUES)
    return _through(tables, pixels)


def invert(pixels: Pixels) -> Pixels:
    """Exchanges dark and bright."""
    return ~pixels


def posterize(pixels: Pixels, bits: int) -> Pixels:
    """Keeps the highest bits; with none the picture is black."""
    return pixels & np.uint8(256 - 2 ** (8 - bits))


def solarize(pixels: Pixels, threshold: int) -> Pixels:
    """Inverts values from the threshold on."""
    return _through([np.where(threshold <= _VALUES, 255 - _VALUES, _VALUES)], pixels)


def solarize_add(pixels: Pixels, addition: int) -> Pixels:
    """Brightens values below 128."""
    brighter = np.minimum(_VALUES + addition, 255)
    return _through([np.where(_VALUES < 128, brighter, _VALUES)], pixels)


def color(pixels: Pixels, factor: float) -> Pixels:
    """Blends with the grey picture (0), or away from it (above 1)."""
    return pixels if pixels.shape[-1] == 1 else _enhance(ImageEnhance.Color, pixels, factor)


def contrast(pixels: Pixels, factor: float) -> Pixels:
    """Blends with the mean grey value."""
    return _enhance(ImageEnhance.Contrast, pixels, factor)


def brightness(pixels: Pixels, factor: float) -> Pixels:
    """Blends with black."""
    return _enhance(ImageEnhance.Brightness, pixels, factor)


def sharpness(pixels: Pixels, factor: float) -> Pixels:
    """Blends with a smoothed picture."""
    return _enhance(ImageEnhance.Sharpness, pixels, factor)


def rotate(pixels: Pixels, degrees: float) -> Pixels:
    """Turns counter-clockwise about the centre, by nearest neighbours."""
    picture = _picture(pixels)
    return _array(picture.rotate(degrees, fillcolor=_grey(picture)))


def shear_x(pixels: Pixels, slope: float) -> Pixels:
    """Shifts row y to the left by slope · y."""
    return _affine(pixels, (1, slope, 0, 0, 1, 0))


def shear_y(pixels: Pixels, slope: float) -> Pixels:
    """Shifts column x upwards by slope · x."""
    return _affine(pixels, (1, 0, 0, slope, 1, 0))


def translate(pixels: Pixels, rows: int, columns: int) -> Pixels:
    """Shifts upwards and to the left; further than the picture's size leaves grey alone."""
    moved = np.full_like(pixels, GREY)
    shifts = zip((rows, columns), pixels.shape, strict=False)
    shifts = [(min(max(shift, -length), length), length) for shift, length in shifts]
    to = tuple(slice(max(-shift, 0), length - max(shift, 0)) for shift, length in shifts)
    source = tuple(slice(max(shift, 0), length - max(-shift, 0)) for shift, length in shifts)
    moved[to] = pixels[source]
    return moved


def cutout(pixels: Pixels, centre: tuple[int, int], radius: int) -> Pixels:
    """Fills a square of side 2 · radius about (row, column) with grey, as far as it fits."""
    (row, column), cut = centre, pixels.copy()
    cut[max(row - radius, 0) : row + radius, max(column - radius, 0) : column + radius] = GREY
    return cut


def _histograms(pixels: Pixels) -> np.ndarray:  # [C, 256]
    channels = range(pixels.shape[-1])
    counts = [cv2.calcHist([pixels], [c], None, [256], [0, 256]).ravel() for c in channels]
    return np.array(counts).astype(int)  # exact: floats count up to 2**24


def _through(tables: list[np.ndarray], pixels: Pixels) -> Pixels:
    """Looks values up in one table, or in a table for each channel."""
    table = np.stack(tables, axis=-1)[None].astype(np.uint8)  # [1, 256, 1 or C]
    return cv2.LUT(pixels, table).reshape(pixels.shape)


def _enhance(kind: Callable, pixels: Pixels, factor: float) -> Pixels:
    return pixels if factor == 1 else _array(kind(_picture(pixels)).enhance(factor))


def _affine(pixels: Pixels, matrix: tuple[float, ...]) -> Pixels:
    """Moves pixels; the matrix maps (x, y) of the result to those of the input."""
    picture = _picture(pixels)
    kind = Image.Transform.AFFINE
    return _array(picture.transform(picture.size, kind, matrix, fillcolor=_grey(picture)))


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _array(picture: Image.Image) -> Pixels:
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _grey(picture: Image.Image) -> int | tuple[int, ...]:
    return GREY if picture.mode == "L" else (GREY,) * 3
