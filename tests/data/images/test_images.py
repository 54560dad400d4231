import io

import numpy as np
import pytest
from PIL import Image

from data.images import preprocessing
from data.transforms import generator
from perceiver.media.images import normalise


@pytest.fixture
def photo(rng):
    """A smooth uint8 picture [67, 101, 3], so that one pixel's shift changes values little."""
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((101, 67), Image.Resampling.BICUBIC))


def encode(image, kind):
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_decode_gives_pixels_with_a_channel_axis(photo, rng, channels):
    decoded = preprocessing.Decode(channels)({"image": encode(photo, "PNG")}, rng)["image"]
    expected = (
        photo if channels == 3 else np.asarray(Image.fromarray(photo).convert("L"))[..., None]
    )
    np.testing.assert_array_equal(decoded, expected)
    np.testing.assert_array_equal(
        preprocessing.Decode(channels)({"image": photo}, rng)["image"], expected
    )


def test_grey_becomes_three_equal_channels(photo, rng):
    grey = photo[..., :1]
    for image in (grey, encode(grey, "PNG")):
        decoded = preprocessing.Decode(3)({"image": image}, rng)["image"]
        np.testing.assert_array_equal(decoded, np.repeat(grey, 3, axis=-1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_central_crop_equals_crop_then_resize(photo, rng, kind):
    encoded = encode(photo, kind)
    result = preprocessing.CentralCrop(29, 3)({"image": encoded}, rng)["image"]
    # 224/256 of 67 is 58.6: 58 pixels; the odd pixels left over go left and top.
    cut = Image.open(io.BytesIO(encoded)).crop((22, 5, 80, 63))
    expected = np.asarray(cut.resize((29, 29), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(result, expected)
    assert result.shape == (29, 29, 3)


def test_central_crop_of_the_standard_size():
    image = np.arange(256 * 256, dtype=np.uint32).astype(np.uint8).reshape(256, 256, 1)
    result = preprocessing.CentralCrop(224, 1)({"image": image}, None)["image"]
    np.testing.assert_array_equal(result, image[16:240, 16:240])


def test_whole_picture_of_the_right_size_is_left_alone(rng):
    image = rng.integers(0, 256, (13, 13, 1), dtype=np.uint8)
    result = preprocessing.CentralCrop(13, 1, fraction=1.0)({"image": image}, rng)["image"]
    np.testing.assert_array_equal(result, image)
    assert (
        preprocessing.CentralCrop(13, 3, fraction=1.0)({"image": image}, rng)["image"].shape[-1]
        == 3
    )


def test_inception_boxes_have_the_stated_area_and_ratio(rng):
    width, height = 401, 307
    crop = preprocessing.InceptionCrop(8, 3)
    boxes = np.array([crop.box((width, height), rng) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    w, h = right - left, bottom - top
    area, ratio = w * h / (width * height), w / h
    assert area.min() > 0.078
    assert area.min() < 0.1
    assert area.max() > 0.9
    assert ratio.min() > 0.74
    assert ratio.max() < 1.35
    # Width and height are treated alike: the logarithm of the ratio is centred on small crops,
    # which always fit.
    assert abs(np.log(ratio[area < 0.5]).mean()) < 0.02
    # Places reach both ends.
    assert left.min() == top.min() == 0
    assert right.max() == width
    assert bottom.max() == height


def test_inception_crop_falls_back_on_the_central_square(rng):
    crop = preprocessing.InceptionCrop(5, 3, area=(0.9, 1.0))
    assert crop.box((1000, 10), rng) == (495, 0, 505, 10)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "array"])
@pytest.mark.parametrize("channels", [1, 3])
def test_inception_crop_cuts_the_box_it_draws(photo, kind, channels):
    image = photo if kind == "array" else encode(photo, kind)
    crop = preprocessing.InceptionCrop(29, channels, area=(0.1, 0.3))  # too small to be reduced
    result = crop({"image": image}, generator(0, 1, 2, 3))["image"]
    left, top, right, bottom = crop.box((101, 67), generator(0, 1, 2, 3))
    whole = Image.fromarray(photo) if kind == "array" else Image.open(io.BytesIO(image))
    whole = np.asarray(whole.convert("L" if channels == 1 else "RGB")).reshape(67, 101, channels)
    np.testing.assert_array_equal(result, whole[top:bottom, left:right])


def test_flip_mirrors_at_its_rate(photo, rng):
    flip = preprocessing.RandomFlip(0.3)
    flipped = [(flip({"image": photo}, rng)["image"] != photo).any() for _ in range(1000)]
    assert abs(np.mean(flipped) - 0.3) < 4 * (0.3 * 0.7 / 1000) ** 0.5
    always = preprocessing.RandomFlip(1.0)({"image": photo}, rng)["image"]
    np.testing.assert_array_equal(always, photo[:, ::-1])


class Fixed:
    """Stands in for a generator: uniform(-1, 1, 4) gives these numbers."""

    def __init__(self, *values):
        self.values = np.array(values, float)

    def uniform(self, low, high, size):
        assert (low, high, size) == (-1, 1, 4)
        return self.values


def test_affine_moves_turns_and_zooms_as_told(rng):
    image = rng.integers(0, 256, (9, 9, 2), dtype=np.uint8)

    def moved(affine, *draws):
        return affine({"image": image}, Fixed(*draws))["image"]

    still = preprocessing.RandomAffine(shift=0.5, rotation=90.0, scale=0.5)
    np.testing.assert_array_equal(moved(still, 0, 0, 0, 0), image)
    # Two rows down, one column to the left: 2/9 and -1/9 of the side.
    shifted = moved(preprocessing.RandomAffine(1.0, 0.0, 0.0), 2 / 9, -1 / 9, 0, 0)
    np.testing.assert_array_equal(shifted[2:, :-1], image[:-2, 1:])
    assert not shifted[:2].any()
    # A quarter turn: SciPy's result is one of the two rotations, exactly.
    np.testing.assert_array_equal(moved(still, 0, 0, 1, 0), np.rot90(image))
    # Zoom by 2 about the centre: every second output pixel is an input pixel.
    zoomed = moved(preprocessing.RandomAffine(0.0, 0.0, 1.0), 0, 0, 0, 1)
    np.testing.assert_array_equal(zoomed[::2, ::2], image[2:7, 2:7])


@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_is_the_librarys_on_examples_and_batches(rng, channels):
    mean, std = (0.2, 0.5, 0.7)[:channels], (0.1, 0.3, 0.4)[:channels]
    batch = rng.integers(0, 256, (2, 5, 7, channels), dtype=np.uint8)
    expected = (batch - 255 * np.array(mean)) / (255 * np.array(std))
    for pixels, formula in ((batch, expected), (batch[0], expected[0])):
        result = preprocessing.Normalise(mean, std)({"image": pixels}, rng)["image"]
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, normalise(pixels, mean, std))
        np.testing.assert_allclose(result, formula, rtol=1e-5, atol=1e-6)


def test_bad_pictures_are_named(rng):
    with pytest.raises(ValueError, match="cannot decode an image from 3 bytes"):
        preprocessing.Decode(3)({"image": b"abc"}, rng)
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
        preprocessing.Decode(2)({"image": b"abc"}, rng)
    with pytest.raises(ValueError, match=r"data\.augment 'mixup' is unknown"):
        preprocessing.augmentation("mixup", 8, 1)


def test_crops_keep_the_share_that_is_asked_for():
    crop = preprocessing.augmentation("inception", 8, 3, crop_area=(0.5, 0.6))[0]
    rng = np.random.default_rng(0)
    for _ in range(50):
        left, top, right, bottom = crop.box((331, 257), rng)
        share = (right - left) * (bottom - top) / (331 * 257)
        assert 0.49 < share < 0.61


@pytest.mark.parametrize("area", [(0.0, 1.0), (0.6, 0.5), (0.5, 1.1), (0.5,)])
def test_a_share_that_cannot_be_is_refused(area):
    with pytest.raises(ValueError, match=r"data\.crop_area .* must be \(smallest, largest\)"):
        preprocessing.augmentation("inception", 8, 3, crop_area=area)
