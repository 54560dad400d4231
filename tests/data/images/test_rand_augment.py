"""Every operation against Pillow's result, and how they are drawn."""

import collections
import itertools

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageEnhance, ImageOps

from data.images import preprocessing, rand_augment
from data.images import rand_augment_operations as operations
from data.images.rand_augment import OPERATIONS, RandAugment
from data.transforms import generator

_H, _W = 41, 53


def pictures(channels):
    """Yields pictures on which an operation may go wrong, by name."""
    rng = np.random.default_rng(0)
    shape = (_H, _W, channels)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((_W, _H), Image.Resampling.BICUBIC))
    yield "noise", rng.integers(0, 256, shape, dtype=np.uint8)
    yield "smooth", np.ascontiguousarray(smooth[..., :channels])
    yield "pale", rng.integers(101, 128, shape, dtype=np.uint8)
    yield "ends", 255 * rng.integers(0, 2, shape, dtype=np.uint8)
    for value in (0, 1, 127, 128, 255):
        yield f"constant {value}", np.full(shape, value, np.uint8)
    lonely = np.full(shape, 255, np.uint8)
    lonely[3, 5] = 7
    yield "one dark pixel", lonely
    yield "one pixel", rng.integers(0, 256, (1, 1, channels), dtype=np.uint8)


def with_pillow(pixels, function):
    """Applies a function of a Pillow image to pixels."""
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return np.asarray(function(picture)).reshape(pixels.shape)


def grey(picture):
    return 128 if picture.mode == "L" else (128, 128, 128)


def moved(picture, matrix):
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, fillcolor=grey(picture))


def brightened(picture, addition):
    """Solarize-add of whole pictures: add with saturation, and choose by a mask."""
    added = picture.point(lambda value: min(value + addition, 255))
    mask = picture.point(lambda value: 255 if value < 128 else 0).split()
    bands = zip(added.split(), picture.split(), mask, strict=True)
    return Image.merge(picture.mode, [Image.composite(a, p, m) for a, p, m in bands])


def same_name(title):
    """An operation that blends by a factor, and Pillow's class of that name."""
    ours, pillows = getattr(operations, title.lower()), getattr(ImageEnhance, title)
    return ours, lambda picture, factor: pillows(picture).enhance(factor)


def shift(pixels, rows_and_columns):
    return operations.translate(pixels, *rows_and_columns)


FACTORS = (0.1, 0.46, 1.0, 1.36, 1.9)
SLOPES = (-0.3, -0.15, 0.0, 0.06, 0.3)
SHIFTS = ((0, 0), (7, 0), (-11, 0), (0, 13), (0, -17), (_H, 0), (100, 0), (0, -100))
# operation -> (function of pixels and a strength, Pillow's of a picture and it, strengths)
CASES = {
    "posterize": (operations.posterize, ImageOps.posterize, (1, 2, 3, 4, 8)),
    "solarize": (operations.solarize, ImageOps.solarize, (0, 1, 128, 255, 256)),
    "solarize_add": (operations.solarize_add, brightened, (0, 55, 110)),
    "rotate": (
        operations.rotate,
        lambda p, degrees: p.rotate(degrees, fillcolor=grey(p)),
        (-30.0, -15.0, 0.0, 6.0, 30.0),
    ),
    "shear_x": (operations.shear_x, lambda p, s: moved(p, (1, s, 0, 0, 1, 0)), SLOPES),
    "shear_y": (operations.shear_y, lambda p, s: moved(p, (1, 0, 0, s, 1, 0)), SLOPES),
    "translate": (shift, lambda p, rc: moved(p, (1, 0, rc[1], 0, 1, rc[0])), SHIFTS),
}
for title in ("Color", "Contrast", "Brightness", "Sharpness"):
    CASES[title.lower()] = (*same_name(title), FACTORS)
for name, pillows in (
    ("autocontrast", ImageOps.autocontrast),
    ("equalize", ImageOps.equalize),
    ("invert", ImageChops.invert),
):  # these have no strength
    CASES[name] = (
        lambda x, _, name=name: getattr(operations, name)(x),
        lambda p, _, pillows=pillows: pillows(p),
        (None,),
    )


@pytest.mark.parametrize("case", CASES)
def test_operations_equal_pillow(case):
    ours, pillows, strengths = CASES[case]
    for channels, strength in itertools.product((1, 3), strengths):
        for kind, pixels in pictures(channels):
            before = pixels.copy()
            result = ours(pixels, strength)
            assert result.dtype == np.uint8
            expected = with_pillow(pixels, lambda p, strength=strength: pillows(p, strength))
            what = f"{kind}, {channels} channels, strength {strength}"
            np.testing.assert_array_equal(result, expected, err_msg=what)
            np.testing.assert_array_equal(pixels, before)  # the example is left as it is


@pytest.mark.parametrize("channels", [1, 3])
def test_cutout_is_a_square_of_grey(channels):
    pixels = np.full((_H, _W, channels), 3, np.uint8)
    inside = operations.cutout(pixels, (20, 30), 7)
    expected = pixels.copy()
    expected[13:27, 23:37] = 128
    np.testing.assert_array_equal(inside, expected)
    corner = operations.cutout(pixels, (0, _W - 1), 7)
    assert (corner == 128).sum() == 7 * 8 * channels
    assert (corner[:7, -8:] == 128).all()
    np.testing.assert_array_equal(operations.cutout(pixels, (5, 5), 0), pixels)
    assert (pixels == 3).all()


def test_posterize_without_bits_is_black():
    assert not operations.posterize(np.full((2, 3, 1), 200, np.uint8), 0).any()


class Heads:
    """Stands in for a generator: every sign is positive, every number 3."""

    def random(self):
        return 0.0

    def integers(self, high):
        return np.full(np.shape(high), 3)


@pytest.mark.parametrize(
    ("magnitude", "arguments"),
    [
        # Released: rotate 30°, posterize 4, solarize 256, add 110, shear 0.3, shift 100, cut 40.
        (5, (15.0, 2, 128, 55, 1.0, 0.15, 50, 20)),
        (10, (30.0, 4, 256, 110, 1.9, 0.3, 100, 40)),
        (1, (3.0, 0, 25, 11, 0.28, 0.03, 10, 4)),
        (0, (0.0, 0, 0, 0, 0.1, 0.0, 0, 0)),
    ],
)
def test_strengths_are_the_released_ones(magnitude, arguments, rng):
    degrees, bits, threshold, addition, factor, slope, shift, radius = arguments
    expected = {"rotate": degrees, "posterize": bits, "solarize": threshold}
    expected |= {"solarize_add": addition, "shear_x": slope, "shear_y": slope}
    expected |= dict.fromkeys(("color", "contrast", "brightness", "sharpness"), factor)
    pixels = rng.integers(0, 256, (211, 223, 3), dtype=np.uint8)
    wanted = {name: getattr(operations, name)(pixels, x) for name, x in expected.items()}
    wanted["translate_y"] = operations.translate(pixels, shift, 0)
    wanted["translate_x"] = operations.translate(pixels, 0, shift)
    wanted["cutout"] = operations.cutout(pixels, (3, 3), radius)
    for name, result in wanted.items():
        ours = OPERATIONS[name](pixels, magnitude / 10, Heads())
        np.testing.assert_array_equal(ours, result, err_msg=name)
    assert OPERATIONS.keys() - wanted == {"autocontrast", "equalize", "invert"}


def test_all_sixteen_are_drawn_alike_with_either_sign(monkeypatch):
    assert len(OPERATIONS) == 16
    drawn = collections.Counter()
    names = list(OPERATIONS)

    def note(name):
        return lambda pixels, strength, rng: drawn.update([name]) or pixels

    monkeypatch.setattr(rand_augment, "_ALL", tuple(note(name) for name in names))
    rounds = 4000
    rng = np.random.default_rng(1)
    for _ in range(rounds):
        RandAugment(4, 5)({"image": np.zeros((1, 1, 3), np.uint8)}, rng)
    expected = 4 * rounds / 16
    assert set(drawn) == set(names)
    assert max(abs(count - expected) for count in drawn.values()) < 5 * expected**0.5


def test_movements_go_either_way(rng):
    pixels = rng.integers(0, 256, (_H, _W, 3), dtype=np.uint8)
    ways = [
        operations.translate(pixels, 0, 20).tobytes(),
        operations.translate(pixels, 0, -20).tobytes(),
    ]
    seen = [ways.index(OPERATIONS["translate_x"](pixels, 0.2, rng).tobytes()) for _ in range(400)]
    assert abs(np.mean(seen) - 0.5) < 4 * 0.5 / 400**0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_the_generator_decides_everything(channels):
    pixels = dict(pictures(channels))["noise"]

    def augmented(index):
        example = {"image": pixels, "label": 4}
        result = RandAugment(4, 5)(example, generator(0, 1, 2, index))
        assert example["image"] is pixels
        assert result["image"].shape == pixels.shape
        assert result["image"].dtype == np.uint8
        assert result["label"] == 4
        return result["image"].tobytes()

    first, again = ([augmented(i) for i in range(40)] for _ in range(2))
    assert first == again
    assert len(set(first)) > 30  # four identities in a row are rare


def test_the_recipe_is_crop_flip_random_operations_resize():
    assert preprocessing.augmentation("inception", 29, 3, 4, 5) == (
        preprocessing.InceptionCrop(29, 3),
        preprocessing.RandomFlip(),
        RandAugment(layers=4, magnitude=5),
        preprocessing.Resize(29),
    )
    assert len(preprocessing.augmentation("inception", 29, 3)) == 3


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match=r"rand_augment_magnitude must be in 0\.\.10, got 11"):
        RandAugment(1, 11)
    with pytest.raises(ValueError, match=r"rand_augment_layers must be at least 0, got -1"):
        preprocessing.augmentation("inception", 8, 3, -1)
    for name in ("none", "digits"):
        with pytest.raises(ValueError, match=f"cannot be combined with data.augment '{name}'"):
            preprocessing.augmentation(name, 8, 3, 2)
