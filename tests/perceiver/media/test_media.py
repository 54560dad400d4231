"""Media files: what is written is read again, at other rates and sizes too."""

import types

import numpy as np
import pytest

from perceiver.media import video_files

av = pytest.importorskip("av", reason="needs PyAV: pip install av")

RATES = {"frames_per_second": 25, "sample_rate": 48_000}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Eleven frames that grow brighter, redder to the right, with a tone of 440 Hz."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    video = np.zeros((11, 32, 48, 3), np.uint8)
    video[...] = (20 * np.arange(11))[:, None, None, None]
    video[:, :, 24:, 0] = 255
    seconds = np.arange(11 * 1920) / 48_000
    audio = 0.5 * np.sin(2 * np.pi * 440 * seconds).astype(np.float32)
    video_files.write(path, video, audio, **RATES)
    return path


def test_frames_and_sound_come_back(file):
    video, audio = video_files.read(file, (32, 48), **RATES)
    assert video.shape == (11, 32, 48, 3)
    assert audio.shape == (11 * 1920,)
    np.testing.assert_allclose(video[:, 16, 10].mean(-1), 20 * np.arange(11), atol=6)
    assert (video[:, 16, 40, 0] > 200).all()
    middle = audio[5000:15000]
    assert middle.std() == pytest.approx(0.5 / np.sqrt(2), rel=0.02)  # lossy: peaks may differ
    spectrum = np.abs(np.fft.rfft(middle))
    assert np.fft.rfftfreq(len(middle), 1 / 48_000)[spectrum.argmax()] == pytest.approx(440, abs=5)


def test_sound_keeps_its_time(tmp_path):
    audio = np.zeros(48_000, np.float32)
    audio[30_011] = 1
    video_files.write(tmp_path / "click.mp4", np.zeros((25, 16, 16, 3), np.uint8), audio, **RATES)
    _, read = video_files.read(tmp_path / "click.mp4", (16, 16), **RATES)
    assert abs(read).argmax() == pytest.approx(30_011, abs=20)


def test_rates_and_size_are_the_readers(file):
    video, audio = video_files.read(file, (16, 16), frames_per_second=12.5, sample_rate=16_000)
    assert video.shape == (6, 16, 16, 3)
    assert audio.shape == (6 * 1280,)
    # every other frame, of the central square
    np.testing.assert_allclose(video[:, 8, 2].mean(-1), 40 * np.arange(6), atol=8)


def test_seconds_bound_what_is_read(file):
    video, audio = video_files.read(file, (8, 8), **RATES, seconds=0.2)
    assert len(video) == 5
    assert len(audio) == 5 * 1920


def test_silence_stands_for_sound_that_is_not_there(tmp_path):
    video = np.full((3, 16, 17, 3), 99, np.uint8)  # an odd width too
    video_files.write(tmp_path / "mute.mp4", video, **RATES)
    read, audio = video_files.read(tmp_path / "mute.mp4", (16, 17), **RATES)
    assert read.shape == video.shape
    assert not audio.any()
    assert len(audio) == 3 * 1920


def test_a_frame_whose_time_is_far_away_is_refused():
    def frames(*times):
        return [types.SimpleNamespace(time=time) for time in times]

    assert len(list(video_files.shown(video_files.timed(frames(1e6, 1e6 + 2), 25), 25))) == 51
    with pytest.raises(ValueError, match=r"a frame at 1,000,000,000 s follows one at 0 s"):
        list(video_files.shown(video_files.timed(frames(0.0, 0.04, 1e9), 25), 25))


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"cannot decode .*text\.mp4"):
        video_files.read(tmp_path / "text.mp4", (8, 8), **RATES)
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        video_files.read(tmp_path / "gone.mp4", (8, 8), **RATES)


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"must be uint8 \[T, H, W, 3\], got uint8 \(2, 16, 16\)"):
        video_files.write(tmp_path / "x.mp4", np.zeros((2, 16, 16), np.uint8), **RATES)
    video = np.zeros((2, 16, 16, 3), np.uint8)
    rates = {"frames_per_second": 25, "sample_rate": 1}
    with pytest.raises(ValueError, match="Invalid argument"):
        video_files.write(tmp_path / "x.mp4", video, np.zeros(9), **rates)
    assert list(tmp_path.iterdir()) == []
