"""Pictures as models see them. Crops against Pillow are tested with the data transforms."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from perceiver.media import images


def test_a_picture_may_be_bytes_pixels_or_a_file(rng, tmp_path):
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    for form in (pixels, file, str(file), file.read_bytes()):
        np.testing.assert_array_equal(images.to_array(images.to_pil(form, 3)), pixels)


def test_channels_are_converted(rng):
    gray = rng.integers(0, 256, (5, 7, 1), dtype=np.uint8)
    repeated = images.to_array(images.to_pil(gray, 3))
    np.testing.assert_array_equal(repeated, np.repeat(gray, 3, axis=-1))
    assert images.to_array(images.to_pil(repeated, 1)).shape == (5, 7, 1)


def test_the_central_box_is_a_square_of_the_shorter_side():
    assert images.central_box(Image.new("L", (300, 200)), 1.0) == (50, 0, 250, 200)
    assert images.central_box(Image.new("L", (200, 301)), 0.5) == (50, 101, 150, 201)
    assert images.central_box(Image.new("L", (1, 1)), 0.5) == (0, 0, 1, 1)


def test_resizing_sees_nothing_outside_the_box():
    picture = Image.fromarray(np.pad(np.zeros((8, 8), np.uint8), 8, constant_values=255))
    assert images.resize(picture, (3, 5), (8, 8, 16, 16)).max() == 0
    assert images.resize(picture, (3, 5), (8, 8, 16, 16)).shape == (3, 5, 1)


def test_what_is_no_picture_is_named(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a picture")
    with pytest.raises(ValueError, match=r"cannot decode an image from .*notes\.txt"):
        images.to_pil(text, 3)
    with pytest.raises(FileNotFoundError, match=r"no such image file: .*gone\.png"):
        images.to_pil(tmp_path / "gone.png", 3)
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 4"):
        images.to_pil(b"", 4)
    broken = io.BytesIO()
    Image.new("L", (64, 64)).save(broken, "png")
    with pytest.raises((ValueError, OSError)):
        images.to_array(images.to_pil(broken.getvalue()[:60], 1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
@pytest.mark.parametrize("left", [0.02, 0.5, 0.9])
def test_a_picture_cut_short_is_named(rng, tmp_path, kind, left):
    file = tmp_path / "half.picture"
    Image.fromarray(rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)).save(file, kind)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(left * len(whole))])
    for form, what in ((file, r"half\.picture"), (file.read_bytes(), "bytes")):
        for channels in (1, 3):
            with pytest.raises(images.BrokenImage, match=f"cannot decode an image.*{what}"):
                images.to_array(images.to_pil(form, channels))
            with pytest.raises(images.BrokenImage, match=f"cannot decode an image.*{what}"):
                images.resize(images.to_pil(form, channels), (5, 5), (0, 0, 7, 7))


def test_a_picture_too_large_to_be_true_is_named(rng, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = io.BytesIO()
    Image.new("L", (50, 50)).save(file, "PNG")
    with pytest.raises(images.BrokenImage, match="exceeds limit of"):
        images.to_pil(file.getvalue(), 1)


ORIENTATIONS = {  # what a viewer does with the pixels that are stored
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    file = io.BytesIO()
    Image.new("L", (13, 11)).save(file, "PNG")
    monkeypatch.setattr(images, "MOST_PIXELS", 13 * 11)
    assert images.to_pil(file.getvalue(), 1).size == (13, 11)
    monkeypatch.setattr(images, "MOST_PIXELS", 13 * 11 - 1)
    with pytest.raises(images.BrokenImage, match="13 x 11 pixels are more than 142; shrink it"):
        images.to_pil(file.getvalue(), 1)


def test_no_other_program_decodes_a_picture(monkeypatch):
    eps = io.BytesIO()
    Image.new("L", (8, 8)).save(eps, "EPS")
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("Ghostscript ran"))
    with pytest.raises(images.BrokenImage, match="cannot identify image file"):
        images.to_pil(eps.getvalue(), 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_picture_is_turned_as_viewers_turn_it(rng, kind, orientation):
    stored = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(stored).save(file, kind, exif=exif, lossless=True)
    shown = ORIENTATIONS[orientation](stored)
    for form in (file.getvalue(), Image.open(file)):
        np.testing.assert_array_equal(images.to_array(images.to_pil(form, 3)), shown)


def test_damaged_exif_turns_nothing(rng):
    file = io.BytesIO()
    stored = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(stored).save(file, "WEBP", exif=b"Exif\0\0nothing", lossless=True)
    np.testing.assert_array_equal(images.to_array(images.to_pil(file.getvalue(), 3)), stored)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_become_the_upper_8(kind, channels):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, kind)
    found = images.to_array(images.to_pil(file.getvalue(), channels))
    np.testing.assert_array_equal(found, np.repeat((ramp >> 8)[..., None], channels, axis=-1))


@pytest.mark.parametrize(("dtype", "what"), [("float32", "floating-point"), ("int32", "32-bit")])
def test_grey_without_a_known_white_is_refused(tmp_path, dtype, what):
    Image.fromarray(np.full((3, 3), 1, dtype)).save(tmp_path / "depth.tif")
    with pytest.raises(
        images.BrokenImage, match=rf"depth\.tif: its grey values are {what}.*0\.\.\.255"
    ):
        images.to_pil(tmp_path / "depth.tif", 1)


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_what_is_transparent_lies_on_white(mode, channels, hidden):
    """Black ink on a ground that nobody sees, whatever colour an editor has given it."""
    alpha = np.zeros((4, 6), np.uint8)
    alpha[1:3, 2:4] = 255
    file = io.BytesIO()
    grey = np.where(alpha, 17, hidden).astype(np.uint8)
    if mode in ("P", "L"):
        Image.fromarray(grey).convert(mode).save(file, "PNG", transparency=hidden)
    else:
        picture = Image.fromarray(grey).convert(mode)
        picture.putalpha(Image.fromarray(alpha))
        picture.save(file, "PNG")
    found = images.to_array(images.to_pil(file.getvalue(), channels))
    expected = np.repeat(np.where(alpha, 17, 255)[..., None], channels, axis=-1)
    np.testing.assert_array_equal(found, expected)
