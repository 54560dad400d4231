"""Windows: frames are their numbers, samples too."""

import numpy as np
import pytest

from data.clips import audio
from data.clips.windows import SAMPLES_PER_FRAME, ClipWindow, EvenWindows, RandomWindow

_FRAMES, _SAMPLES = 7, 11_003  # 11,003 samples last 5.7 frames
_LENGTH = 17  # frames of the clip: 32,640 samples, which int16 can number


def clip(frames=_LENGTH, samples=_LENGTH * SAMPLES_PER_FRAME):
    return {"frames": list(range(frames)), "sound": np.arange(samples, dtype=np.int16)}


def first_sample(window):  # [S] float32
    numbers = window * 2**15
    np.testing.assert_array_equal(np.diff(numbers), 1)
    return int(numbers[0])


def draws(window, example, count=4000, **options):
    rng = np.random.default_rng(0)
    return [RandomWindow(window, **options)(example, rng) for _ in range(count)]


def test_picture_and_sound_begin_together():
    for found in draws(ClipWindow(_FRAMES, _SAMPLES), clip(), 53):
        start = found["places"][0]
        np.testing.assert_array_equal(found["places"], start + np.arange(_FRAMES))
        assert first_sample(found["audio"]) == start * 1920  # 48,000 Hz / 25 Hz
        assert found["audio"].shape == (_SAMPLES,)
        assert found["audio"].dtype == np.float32


@pytest.mark.parametrize("samples", [0, _SAMPLES])
def test_every_start_is_equally_likely(samples):
    starts = [found["places"][0] for found in draws(ClipWindow(_FRAMES, samples), clip())]
    counts = np.bincount(starts)
    assert len(counts) == _LENGTH - _FRAMES + 1
    expected = len(starts) / len(counts)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_sound_alone_is_windowed_by_its_own_length():
    found = draws(ClipWindow(0, _SAMPLES), clip(frames=0))
    assert all("places" not in each for each in found)
    starts = {first_sample(each["audio"]) // SAMPLES_PER_FRAME for each in found}
    assert starts == set(range(_LENGTH - 6 + 1))  # 5.7 frames take 6


def test_picture_alone():
    found = draws(ClipWindow(_FRAMES, 0), clip(samples=0), 3)
    assert all("audio" not in each for each in found)


def test_time_jitter_shifts_the_sound_both_ways():
    shifts = []
    for found in draws(ClipWindow(_FRAMES, 101), clip(), time_jitter=3):
        start = found["places"][0]
        if start:  # before the first sample is silence
            shifts.append(first_sample(found["audio"]) - start * SAMPLES_PER_FRAME)
    counts = np.bincount(np.array(shifts) + 3)
    assert len(counts) == 7
    assert counts.min() > 0.8 * counts.mean()


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_even_windows(count):
    found = EvenWindows(ClipWindow(_FRAMES, _SAMPLES), count)(clip(), None)
    places, sound = found["places"], found["audio"]
    assert (places.shape, sound.shape) == ((count, _FRAMES), (count, _SAMPLES))
    assert places[0, 0] == 0
    if count > 1:
        assert places[-1, -1] == _LENGTH - 1
        steps = np.diff(places[:, 0])
        assert steps.max() - steps.min() <= 1
    for window, heard in zip(places, sound, strict=True):
        assert first_sample(heard) == window[0] * SAMPLES_PER_FRAME


def test_the_papers_windows():
    window = ClipWindow(32, 61_440)
    example = {"frames": [b""] * 250, "sound": np.zeros(480_000, np.int16)}
    starts = EvenWindows(window, 16)(example, None)["places"][:, 0]
    assert starts.tolist() == [round(218 * i / 15) for i in range(16)]


def test_a_short_clip_repeats_its_last_frame_and_ends_in_silence():
    short = clip(frames=3, samples=5003)
    for transform in (
        RandomWindow(ClipWindow(_FRAMES, _SAMPLES)),
        EvenWindows(ClipWindow(7, 11_003), 2),
    ):
        found = transform(short, np.random.default_rng(0))
        for places in found["places"].reshape(-1, _FRAMES):
            assert places.tolist() == [0, 1, 2, 2, 2, 2, 2]
        for sound in found["audio"].reshape(-1, _SAMPLES):
            assert first_sample(sound[:5003]) == 0
            assert not sound[5003:].any()


def test_what_is_missing_leaves_the_other_in_place():
    window = ClipWindow(_FRAMES, _SAMPLES)
    for found in draws(window, clip(frames=0), 19):
        assert found["places"].tolist() == [0] * _FRAMES
        assert first_sample(found["audio"]) <= (_LENGTH - _FRAMES) * SAMPLES_PER_FRAME
    for found in draws(window, clip(samples=0), 19):
        assert found["places"][-1] < _LENGTH
        assert not found["audio"].any()


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (-2, [0, 0, 1, 2, 3]),
        (1, [2, 3, 4, 0, 0]),
        (4, [0] * 5),
        (-7, [0] * 5),
    ],
)
def test_outside_of_a_sound_is_silence(start, expected):
    sound = np.array([1, 2, 3, 4], np.int16)
    np.testing.assert_array_equal(audio.cut(sound, start, 5) * 2**15, expected)


def test_the_scale_of_sound():
    ends = audio.cut(np.array([-(2**15), 2**15 - 1], np.int16), 0, 2)
    np.testing.assert_array_equal(ends, np.float32([-1, 1 - 2**-15]))
