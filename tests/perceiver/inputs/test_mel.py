"""Log-mel spectrograms against librosa's, and SpecAugment's masks."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.inputs.mel import filters, log_mel
from perceiver.inputs.spec_augment import mask_spectrogram

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
DECIBELS = 1e-4  # largest difference
SETTINGS = {"sample_rate": 48000, "window": 2048, "hop": 1024, "bins": 80}


@pytest.fixture(scope="module")
def golden():
    """The module that made the stored values."""
    spec = importlib.util.spec_from_file_location("make_mel", GOLDEN / "make_mel.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ours(audio, settings):
    return np.asarray(jax.jit(lambda x: log_mel(x, **settings))(audio))


def test_equals_the_values_that_librosa_made(golden):
    with np.load(golden.FILE) as stored:
        audio, decibels = stored["audio"], stored["decibels"]
    assert golden.SETTINGS == SETTINGS
    assert decibels.shape == (2, 9, 80)
    assert np.abs(ours(audio, SETTINGS) - decibels).max() <= DECIBELS


@pytest.mark.parametrize(
    "change",
    [{}, {"sample_rate": 16000, "window": 400, "hop": 160, "bins": 41}, {"hop": 2048}],
    ids=["default", "windows of two and a half hops", "no overlap"],
)
def test_equals_librosa_where_it_is_installed(golden, change):
    pytest.importorskip("librosa", reason="compares with librosa: pip install librosa")
    settings = SETTINGS | change
    audio = golden.sound(7 * settings["hop"])
    difference = ours(audio, settings) - golden.by_librosa(audio, settings)
    assert np.abs(difference).max() <= DECIBELS


def test_a_clip_of_the_paper_has_4800_values():
    audio = jax.ShapeDtypeStruct((3, 61440), jnp.float32)
    found = jax.eval_shape(lambda x: log_mel(x, **SETTINGS), audio)
    assert found.shape == (3, 60, 80)
    assert found.dtype == jnp.float32


def test_frames_are_centred_on_their_hops():
    settings = {"sample_rate": 8000, "window": 64, "hop": 32, "bins": 5}
    audio = np.zeros((1, 32 * 11), np.float32)
    audio[0, 32 * 4 + 16] = 1  # the middle of the fifth hop
    power = 10 ** (ours(audio, settings)[0] / 10)
    heard = power.max(axis=1)
    assert heard.argmax() == 4
    np.testing.assert_allclose(heard[3], heard[5], atol=1e-9)
    assert (heard[[0, 1, 2, 6, 7, 8, 9, 10]] <= 1.01e-10).all()


def test_a_pure_tone_is_heard_where_it_is():
    settings = SETTINGS | {"hop": 2048}
    weights = filters(48000, 2048, 80)
    for bin_number in (100, 700):  # of the window: a frequency that it meets exactly
        tone = np.sin(2 * np.pi * bin_number * np.arange(3 * 2048) / 2048)[None]
        found = ours(tone.astype(np.float32), settings)[0, 1]
        assert found.argmax() == weights[bin_number].argmax()


def test_silence_is_the_floor_and_gradients_are_finite():
    audio = np.zeros((1, 5 * 1024), np.float32)
    np.testing.assert_allclose(ours(audio, SETTINGS), -100, atol=1e-4)
    for x in (audio, np.linspace(-1, 1, 5 * 1024, dtype=np.float32)[None]):
        gradient = jax.grad(lambda x: log_mel(x, **SETTINGS).sum())(x)
        assert np.isfinite(gradient).all()


def test_empty_filters_are_refused():
    with pytest.raises(ValueError, match=r"mel filter 0 of 80 is empty: .* to 375.0 Hz only"):
        filters(48000, 128, 80)


def test_masks_are_one_stretch_of_time_and_one_of_bins(rng):
    given = rng.random((200, 13, 11), np.float32)
    found = mask_spectrogram(jax.random.key(2), given, time_width=5, bin_width=3)
    mean = given.mean(axis=(1, 2))
    times, bins = set(), set()
    for before, after, middle in zip(given, np.asarray(found), mean, strict=True):
        hidden = after != before
        np.testing.assert_allclose(after[hidden], middle, rtol=1e-5)
        rows, columns = hidden.all(axis=1), hidden.all(axis=0)
        np.testing.assert_array_equal(hidden, rows[:, None] | columns[None])
        for stretch, widths in ((rows, times), (columns, bins)):
            edges = np.flatnonzero(np.diff(stretch.astype(int), prepend=0, append=0))
            assert len(edges) in (0, 2)
            widths.add(int(stretch.sum()))
    assert times == set(range(6))
    assert bins == set(range(4))


def test_no_widths_mask_nothing(rng):
    given = rng.random((7, 13, 11), np.float32)
    found = mask_spectrogram(jax.random.key(2), given, time_width=0, bin_width=0)
    np.testing.assert_array_equal(found, given)
