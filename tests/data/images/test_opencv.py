"""OpenCV's pictures against Pillow's."""

import io

import numpy as np
import pytest
from PIL import Image

from data.dataset import BrokenExample
from data.images import opencv, preprocessing

_SIZE = 61


@pytest.fixture(scope="module")
def photo():
    """A picture [393, 517, 3] with detail at every scale, as photographs have."""
    rng = np.random.default_rng(0)
    layers = np.zeros((393, 517, 3))
    for side in (3, 7, 13, 29, 61, 127, 251):
        coarse = rng.uniform(-1, 1, (side, side, 3)).astype(np.float32)
        planes = [Image.fromarray(coarse[..., c]) for c in range(3)]
        planes = [np.asarray(p.resize((517, 393), Image.Resampling.BICUBIC)) for p in planes]
        layers += np.stack(planes, axis=-1) * 60 * (3 / side) ** 0.6
    return np.clip(128 + layers, 0, 255).astype(np.uint8)


def encode(pixels, kind="JPEG", mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def decibels(ours, reference):
    error = np.mean((ours.astype(float) - reference) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"comment": b"\xff\xc0" * 99}, {"exif": b"Exif\0\0" + b"x"}],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_size_is_read_from_the_header(photo, mode, options):
    assert opencv.jpeg_size(encode(photo, mode=mode, **options)) == (517, 393)


def test_what_is_no_plain_jpeg_has_no_size(photo):
    whole = encode(photo)
    for image in (photo, encode(photo, "PNG"), encode(photo, mode="CMYK"), b"", whole[:40]):
        assert opencv.jpeg_size(image) is None
    size = whole.index((393).to_bytes(2) + (517).to_bytes(2))
    huge = whole[:size] + b"\xff\xff\xff\xff" + whole[size + 4 :]
    assert opencv.jpeg_size(huge) is None  # Pillow refuses it, with a reason
    with pytest.raises(BrokenExample, match="exceeds limit"):
        preprocessing.InceptionCrop(_SIZE, 3)({"image": huge}, np.random.default_rng(0))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_crop_is_pillows_to_the_last_bit(photo, mode, options):
    encoded = encode(photo, mode=mode, quality=93, **options)
    box = (31, 17, 31 + 101, 17 + 2 * _SIZE - 1)  # just below twice the size
    expected = Image.open(io.BytesIO(encoded)).convert("RGB").crop(box)
    np.testing.assert_array_equal(opencv.decode_crop(encoded, box, _SIZE), np.asarray(expected))


@pytest.mark.parametrize("divisor", [2, 4])
def test_a_large_crop_comes_reduced_but_large_enough(photo, divisor):
    size = 61 // (divisor // 2)
    box = (31, 17, 31 + divisor * size + 70, 17 + divisor * size)
    encoded = encode(photo, quality=93)
    crop = opencv.decode_crop(encoded, box, size)
    draft = Image.open(io.BytesIO(encoded))
    draft.draft(None, (517 // divisor, 393 // divisor))
    edges = (31 // divisor, 17 // divisor, -(-box[2] // divisor), -(-box[3] // divisor))
    np.testing.assert_array_equal(crop, np.asarray(draft.crop(edges)))
    assert min(crop.shape[:2]) >= size
    full = Image.open(io.BytesIO(encoded)).crop(box).resize((size, size), Image.Resampling.BICUBIC)
    assert decibels(opencv.resize(crop, size), np.asarray(full)) > 30  # shifted by under a pixel


def test_a_photo_of_a_telephone_is_upright_in_training_and_evaluation(photo, rng):
    exif, whole = Image.Exif(), {"area": (1.0, 1.0), "attempts": 0}
    exif[0x0112] = 6  # turned by 90 degrees
    turned, encoded = encode(photo, exif=exif), encode(photo)
    assert opencv.jpeg_size(turned) is None
    upright = preprocessing.InceptionCrop(_SIZE, 3, **whole)({"image": encoded}, rng)["image"]
    found = preprocessing.InceptionCrop(_SIZE, 3, **whole)({"image": turned}, rng)["image"]
    sides = 393, 393
    assert upright.shape[0] < 393  # reduced by OpenCV
    assert found.shape[:2] == sides
    pixels = np.asarray(Image.open(io.BytesIO(encoded)))[:, (517 - 393) // 2 :][:, :393]
    np.testing.assert_array_equal(found, np.rot90(pixels, -1))
    straight = preprocessing.CentralCrop(_SIZE, 3)({"image": encoded}, rng)["image"]
    central = preprocessing.CentralCrop(_SIZE, 3)({"image": turned}, rng)["image"]
    assert decibels(central, np.rot90(straight, -1)) > 30  # the odd pixel is on another side


@pytest.mark.parametrize("shrink", [0.4, 0.9, 1.0, 1.1, 1.3, 1.5, 1.7, 1.9])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_close_to_pillows_antialiased_bicubic(photo, shrink, channels):
    size = 149
    height, width = round(size * shrink), round(size * shrink * 1.1)
    crop = np.ascontiguousarray(photo[:height, :width, :channels])
    picture = Image.fromarray(crop[..., 0] if channels == 1 else crop)
    expected = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
    result = opencv.resize(crop, size)
    assert result.shape == (size, size, channels)
    assert decibels(result, expected.reshape(result.shape)) > 40


def test_a_picture_of_the_right_size_is_left_alone(rng):
    pixels = rng.integers(0, 256, (13, 13, 3), dtype=np.uint8)
    np.testing.assert_array_equal(opencv.resize(pixels, 13), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_mirror(rng, channels):
    pixels = rng.integers(0, 256, (5, 7, channels), dtype=np.uint8)
    np.testing.assert_array_equal(opencv.mirror(pixels), pixels[:, ::-1])


@pytest.mark.parametrize("mode", ["CMYK", "RGB", "L"])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_and_mode_is_read_as_pillow_does(photo, rng, kind, mode, channels):
    encoded = encode(photo, kind, mode)
    whole = preprocessing.InceptionCrop(_SIZE * 100, channels, area=(1.0, 1.0), attempts=0)
    result = whole({"image": encoded}, rng)["image"]
    expected = Image.open(io.BytesIO(encoded)).convert("L" if channels == 1 else "RGB")
    left = (517 - 393) // 2
    expected = np.asarray(expected).reshape(393, 517, channels)[:, left : left + 393]
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_jpeg_cut_short_is_broken_in_training_as_in_evaluation(photo, rng, part):
    encoded = encode(photo)
    cut = encoded[: int(part * len(encoded))]
    for transform in (preprocessing.InceptionCrop(_SIZE, 3), preprocessing.CentralCrop(_SIZE, 3)):
        with pytest.raises(BrokenExample, match="cannot decode an image"):
            transform({"image": cut}, rng)
