"""Draws one glyph as a photograph would show it: any place, size, turn, colour, background.

The glyph is drawn at its final size, turned and laid over a background of low contrast. Everything
happens in arrays and in Pillow, at a few milliseconds a picture.
"""

import functools
import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDES = (256, 340)  # of a picture, in pixels; height and width are drawn apart
# The glyph lies within the central square of this part of the shorter side: the crop of evaluation.
FRAME = 7 / 8
EXTENT = (0.45, 0.9)  # the glyph's longer side, as a part of that square's
ROTATION = 20.0  # degrees, each way
MIN_CONTRAST = 70.0  # between the luminances (0..255) of glyph and background
# A background varies by at most this part of that contrast, each way.
BACKGROUND_CONTRAST = 0.3
QUALITY = 90  # of the JPEG file
_LUMINANCE = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601, as JPEG has it
_REFERENCE_SIZE = 128  # of a font, at which a glyph is measured


def draw(character: str, face: str, rng: np.random.Generator) -> Image.Image:
    """Returns an RGB picture of `character` in the font file `face`."""
    width, height = (int(side) for side in rng.integers(*SIDES, size=2, endpoint=True))
    ink, paper = _colours(rng)
    frame = int(FRAME * min(width, height))
    glyph = _turned_glyph(character, face, rng.uniform(*EXTENT) * frame, rng)
    picture = _background((width, height), paper, _contrast(ink, paper), rng)
    glyph.thumbnail((frame, frame))  # a wide one of the full extent, turned, could stand out
    left = (width - frame) // 2 + int(rng.integers(frame - glyph.width, endpoint=True))
    top = (height - frame) // 2 + int(rng.integers(frame - glyph.height, endpoint=True))
    picture.paste(tuple(ink.astype(int).tolist()), (left, top), glyph)
    return picture


def encode(picture: Image.Image) -> bytes:
    """Returns the picture as a JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def has_glyph(character: str, face: str) -> bool:
    """Returns whether the font draws `character` itself, not nothing and not its placeholder."""
    font = _font(face, _REFERENCE_SIZE)
    drawn = font.getmask(character)
    missing = font.getmask("\ufffe")  # no character at all, so the placeholder
    return drawn.getbbox() is not None and bytes(drawn) != bytes(missing)


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:  # [3], [3] float32
    """Draws the colours of glyph and background: any two that differ enough in luminance."""
    while True:
        ink, paper = rng.uniform(0, 255, (2, 3)).astype(np.float32)
        if _contrast(ink, paper) >= MIN_CONTRAST:
            return ink, paper


def _contrast(ink: np.ndarray, paper: np.ndarray) -> float:
    return float(abs((ink - paper) @ _LUMINANCE))


def _turned_glyph(
    character: str, face: str, extent: float, rng: np.random.Generator
) -> Image.Image:
    """Returns the glyph's coverage, mode L, cut to its bounds; its longer side was `extent`."""
    size = max(8, round(extent * _REFERENCE_SIZE / _reference_extent(face, character)))
    font = _font(face, size - size % 4)  # a quarter of the sizes to keep in memory
    left, top, right, bottom = font.getbbox(character)
    upright = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
    ImageDraw.Draw(upright).text((-left, -top), character, fill=255, font=font)
    turned = upright.rotate(rng.uniform(-ROTATION, ROTATION), Image.Resampling.BICUBIC, expand=True)
    return turned.crop(turned.getbbox())


@functools.cache
def _reference_extent(face: str, character: str) -> float:
    left, top, right, bottom = _font(face, _REFERENCE_SIZE).getbbox(character)
    return max(right - left, bottom - top)


@functools.lru_cache(maxsize=4096)
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    # The plain layout: Raqm may be missing elsewhere, and one glyph needs no shaping.
    return ImageFont.truetype(face, size, layout_engine=ImageFont.Layout.BASIC)


def _background(
    size: tuple[int, int], paper: np.ndarray, contrast: float, rng: np.random.Generator
) -> Image.Image:
    """Returns `paper` with a pattern of low contrast; size is (width, height)."""
    pattern = _PATTERNS[rng.integers(len(_PATTERNS))]
    amplitude = rng.uniform(0.1, 1) * BACKGROUND_CONTRAST * contrast
    # Each colour channel varies in its own measure, so that the hue changes too.
    tint = rng.uniform(0.4, 1, 3).astype(np.float32) * np.float32(amplitude)
    field = pattern(size, rng)  # [H, W] float32 in -1..1
    grain = rng.uniform(0, 6) if rng.random() < 0.5 else 0.0
    if grain:
        field = field + rng.standard_normal(field.shape, np.float32) * (grain / amplitude)
    pixels = paper + field[..., None] * tint  # [H, W, 3]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _flat(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:  # [H, W]
    return np.zeros(size[::-1], np.float32)


def _gradient(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:  # [H, W]
    """A linear ramp from -1 to 1 in any direction."""
    angle = rng.uniform(0, 2 * math.pi)
    x = np.linspace(-1, 1, size[0], dtype=np.float32) * np.float32(math.cos(angle))
    y = np.linspace(-1, 1, size[1], dtype=np.float32) * np.float32(math.sin(angle))
    return (y[:, None] + x) / np.float32(abs(math.cos(angle)) + abs(math.sin(angle)))


def _clouds(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:  # [H, W]
    """Noise of one scale, between a few pixels and half of the picture."""
    cell = math.exp(rng.uniform(math.log(3), math.log(120)))
    grid = tuple(max(2, round(side / cell)) for side in size[::-1])
    coarse = Image.fromarray(rng.uniform(-1, 1, grid).astype(np.float32))
    return np.clip(np.asarray(coarse.resize(size, Image.Resampling.BILINEAR)), -1, 1)


def _blobs(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:  # [H, W]
    """Filled ellipses, one over the other."""
    shapes = Image.new("L", size, 128)
    pen = ImageDraw.Draw(shapes)
    for _ in range(int(rng.integers(3, 13))):
        x, y = rng.uniform(0, size)
        half_width, half_height = rng.uniform(8, 70, 2)
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        pen.ellipse(box, fill=int(rng.integers(256)))
    return (np.asarray(shapes, np.float32) - 128) / 128


def _lines(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:  # [H, W]
    """Straight lines of any width, one over the other."""
    shapes = Image.new("L", size, 128)
    pen = ImageDraw.Draw(shapes)
    for _ in range(int(rng.integers(3, 16))):
        ends = rng.uniform(0, (*size, *size)).tolist()
        pen.line(ends, fill=int(rng.integers(256)), width=int(rng.integers(1, 9)))
    return (np.asarray(shapes, np.float32) - 128) / 128


_PATTERNS = (_flat, _gradient, _clouds, _blobs, _lines)
