"""Crops, flips and colour of a stack of frames."""

import io
import math

import cv2
import numpy as np
import pytest
from PIL import Image

from data.clips import video
from data.dataset import BrokenExample
from data.images.preprocessing import InceptionCrop
from perceiver.media import images

_SIZE = 31
_T, _H, _W = 3, 53, 71


def jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def smooth(rng, height=_H, width=_W):
    small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def window(frames, places):
    return {"frames": frames, "places": np.array(places)}


@pytest.mark.parametrize("fraction", [224 / 256, 1.0, 0.5])
def test_the_central_box_is_that_of_photographs(fraction):
    for width in range(1, 40):
        picture = Image.new("L", (width, 17))
        assert video.central_box(picture.size, fraction) == images.central_box(picture, fraction)


@pytest.mark.parametrize(
    "places", [[[0, 1, 2], [1, 2, 2]], [[0, 1], [2, 3]], [[2, 3], [0, 1]], [1, 3]]
)
def test_frames_come_in_their_places_and_shared_ones_are_decoded_once(rng, monkeypatch, places):
    pictures = [smooth(rng) for _ in range(4)]
    frames = [jpeg(each) for each in pictures]
    calls = []
    decode = video.opencv.decode_crop
    monkeypatch.setattr(
        video.opencv,
        "decode_crop",
        lambda *words, **more: calls.append(1) or decode(*words, **more),
    )
    found = video.DecodeCrop(_SIZE)(window(frames, places), rng)["video"]
    assert len(calls) == len(np.unique(places))
    assert found.dtype == np.uint8
    alone = [video.DecodeCrop(_SIZE)(window(frames, [n]), rng)["video"][0] for n in range(4)]
    np.testing.assert_array_equal(found, np.stack(alone)[np.array(places)])


def test_the_central_crop_is_that_of_evaluated_photographs(rng):
    frame = jpeg(smooth(rng))
    found = video.DecodeCrop(_SIZE)(window([frame], [0]), rng)["video"][0]
    picture = Image.open(io.BytesIO(frame))
    cut = picture.crop(images.central_box(picture, 224 / 256))
    expected = np.asarray(cut.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(found - expected).mean() < 1.5


def test_all_frames_share_crop_flip_and_colour(rng):
    same = [jpeg(smooth(rng))] * _T
    steps = (video.DecodeCrop(_SIZE, InceptionCrop(_SIZE, 3)), video.Flip(), video.Colour(0.4))
    seen = set()
    for _ in range(11):
        example = window(same, range(_T))
        for step in steps:
            example = step(example, rng)
        found = example["video"]
        np.testing.assert_array_equal(found, np.broadcast_to(found[:1], found.shape))
        seen.add(found[0].tobytes())
    assert len(seen) == 11


def test_a_clip_without_picture_is_black_through_all_steps(rng):
    example = video.DecodeCrop(_SIZE)(window([], [[0, 0, 0]] * 2), rng)
    for step in (video.Flip(1.0), video.Colour(1.0)):
        example = step(example, rng)
    assert example["video"].shape == (2, 3, _SIZE, _SIZE, 3)
    assert not example["video"].any()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"", "frame 1, 0 bytes, is not a colour JPEG"),
        (
            jpeg(np.zeros((_H, _W, 3), np.uint8))[:500],
            "frame 1, a JPEG of 500 bytes, cannot be",
        ),
        (
            jpeg(np.zeros((_W, _H, 3), np.uint8)),
            r"frame 1 has size \(53, 71\), other frames have",
        ),
    ],
)
def test_a_frame_that_does_not_fit_is_broken(rng, frame, message):
    whole = jpeg(smooth(rng))
    with pytest.raises(BrokenExample, match=message):
        video.DecodeCrop(_SIZE)(window([whole, frame, whole], [0, 1, 2]), rng)
    video.DecodeCrop(_SIZE)(window([whole, frame, whole], [0, 2]), rng)  # never looked at


def test_flip(rng):
    stack = rng.integers(0, 256, (_T, 5, 7, 3), dtype=np.uint8)
    flipped = video.Flip(1.0)({"video": stack}, rng)["video"]
    np.testing.assert_array_equal(flipped, stack[:, :, ::-1])
    rates = [video.Flip()({"video": stack}, rng)["video"] is not stack for _ in range(1000)]
    assert 0.45 < np.mean(rates) < 0.55


def luma(x):
    return x @ np.array([0.299, 0.587, 0.114])


def reference(stack, brightness, contrast, saturation, turn):
    """One operation after the other, in float64, without limits in between."""
    x = stack.astype(np.float64) * brightness
    mean = luma(x).mean()
    x = mean + contrast * (x - mean)
    grey = luma(x)[..., None]
    x = grey + saturation * (x - grey)
    # The hue: brightness y, and a complex number of colour, which turns.
    y = luma(x)
    i = x @ np.array([0.595716, -0.274453, -0.321263])
    q = x @ np.array([0.211456, -0.522591, 0.311135])
    chroma = (i + 1j * q) * np.exp(2j * math.pi * turn)
    yiq = np.stack([y, chroma.real, chroma.imag], axis=-1)
    to_rgb = np.array([[1, 0.956, 0.621], [1, -0.272, -0.647], [1, -1.106, 1.703]])  # as published
    return np.clip(yiq @ to_rgb.T, 0, 255)


@pytest.mark.parametrize(
    "factors",
    [
        (1.0, 1.0, 1.0, 0.0),
        (1.4, 1.0, 1.0, 0.0),
        (1.0, 0.6, 1.0, 0.0),
        (1.0, 1.0, 0.0, 0.0),
        (1.0, 1.0, 1.0, 0.1),
        (1.0, 1.0, 1.0, -0.25),
        (0.7, 1.3, 1.4, 0.09),
        (1.2, 0.8, 0.7, -0.1),
    ],
)
def test_colour_is_the_four_operations_in_turn(rng, factors):
    stack = np.stack([smooth(rng) for _ in range(_T)])
    found = video.change_colour(stack, *factors)
    expected = reference(stack, *factors)
    assert found.dtype == np.uint8
    # Half a grey level of rounding, and the three digits of the published matrix.
    assert np.abs(found - expected).max() < 1.5
    assert np.abs(found - expected).mean() < 0.5


def test_strength_bounds_what_is_drawn(rng, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        video, "change_colour", lambda x, *factors, turn: drawn.append((*factors, turn)) or x
    )
    for _ in range(2000):
        video.Colour(0.4)({"video": None}, rng)
    low, high = np.min(drawn, axis=0), np.max(drawn, axis=0)
    np.testing.assert_allclose(low, [0.6, 0.6, 0.6, -0.1], atol=0.005)
    np.testing.assert_allclose(high, [1.4, 1.4, 1.4, 0.1], atol=0.005)


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_a_bad_strength(strength):
    with pytest.raises(ValueError, match=r"data\.colour must be in 0\.\.1"):
        video.Colour(strength)
