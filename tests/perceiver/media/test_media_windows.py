"""Windows of streams and files: which part of the whole they hold, and that memory is bounded."""

import tracemalloc
import wave

import numpy as np
import pytest

from perceiver.media import video_files, video_windows
from perceiver.media.video_windows import Shape

# 10 frames and 40 samples a second; a window is 0.7 seconds
SHAPE = Shape(frames=7, size=(2, 3), frames_per_second=10, samples=28, sample_rate=40)


def numbered_frames(count):
    """Frames [1, 2, 3, 3] that hold their number."""
    return (np.full((1, 2, 3, 3), i % 256, np.uint8) for i in range(count))


def numbered_samples(count, piece):
    every = np.arange(count, dtype=np.float32)
    return (every[i : i + piece] for i in range(0, count, piece))


def numbers(window):
    return window.video[:, 0, 0, 0].tolist(), window.audio.tolist()


def test_windows_overlap_and_cover_all():
    found = list(
        video_windows.of_streams(numbered_frames(17), numbered_samples(68, 11), SHAPE, 0.5)
    )
    assert [window.start for window in found] == [0, 0.5, 1]
    for window, frame in zip(found, (0, 5, 10), strict=True):
        assert numbers(window) == ([*range(frame, frame + 7)], [*range(4 * frame, 4 * frame + 28)])


def test_what_is_missing_at_the_end_is_the_last_frame_and_silence():
    (found,) = video_windows.of_streams(numbered_frames(3), numbered_samples(9, 5), SHAPE, 0.5)
    assert numbers(found) == ([0, 1, 2, 2, 2, 2, 2], [*range(9), *[0] * 19])


def test_one_stream_may_end_first_or_never_begin():
    found = list(video_windows.of_streams(numbered_frames(4), numbered_samples(70, 9), SHAPE, 0.7))
    assert [window.video is None for window in found] == [False, True, True]
    assert [len(window.audio) for window in found] == [28] * 3
    found = list(video_windows.of_streams(iter(()), numbered_samples(28, 9), SHAPE, 0.7))
    assert [window.video for window in found] == [None]


def test_hops_may_leave_gaps():
    found = list(
        video_windows.of_streams(numbered_frames(40), numbered_samples(160, 7), SHAPE, 1.5)
    )
    assert [numbers(window)[0][0] for window in found] == [0, 15, 30]


def test_a_rest_as_short_as_a_codecs_padding_gets_no_window():
    found = video_windows.of_streams(numbered_frames(7), numbered_samples(29, 28), SHAPE, 0.7)
    assert len(list(found)) == 1


def test_such_a_rest_gets_none_after_a_gap_either():
    found = video_windows.of_streams(numbered_frames(30), numbered_samples(121, 28), SHAPE, 1.0)
    assert [window.start for window in found] == [0, 1, 2]


def test_a_stream_that_needs_no_time_is_refused():
    with pytest.raises(ValueError, match="cannot start every 0 seconds"):
        next(video_windows.of_streams(iter(()), iter(()), SHAPE, 0))


def test_long_streams_are_not_kept():
    big = Shape(frames=8, size=(64, 64), frames_per_second=10, samples=0, sample_rate=40)
    frames = (np.zeros((1, 64, 64, 3), np.uint8) for _ in range(2000))  # 25 MB
    tracemalloc.start()
    count = sum(1 for _ in video_windows.of_streams(frames, iter(()), big, 0.4))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 499
    assert peak < 1e6


@pytest.fixture
def clip(tmp_path):
    """Two seconds that brighten with time, with a tone."""
    pytest.importorskip("av", reason="needs PyAV: pip install av")
    video = np.repeat(np.arange(50, dtype=np.uint8) * 5, 16 * 16 * 3).reshape(50, 16, 16, 3)
    time = np.arange(96_000) / 48_000
    sound = 0.5 * np.sin(2 * np.pi * 440 * time).astype(np.float32)
    rates = {"frames_per_second": 25, "sample_rate": 48_000}
    video_files.write(tmp_path / "clip.mp4", video, sound, **rates)
    video_files.write(tmp_path / "silent.mp4", video, None, **rates)
    return tmp_path / "clip.mp4"


FILE_SHAPE = Shape(frames=8, size=(4, 6), frames_per_second=25, samples=15360, sample_rate=48000)


def test_a_file_is_read_in_step(clip):
    found = list(video_windows.of_file(clip, FILE_SHAPE, 0.32))
    assert [window.start for window in found] == pytest.approx([0.32 * i for i in range(7)])
    brightness = np.concatenate([window.video.mean(axis=(1, 2, 3)) for window in found])[:50]
    np.testing.assert_allclose(brightness, np.arange(50) * 5, atol=3)
    heard = np.concatenate([window.audio for window in found])
    assert np.abs(heard[4800:90_000]).max() == pytest.approx(0.5, abs=0.05)
    assert {window.video.shape for window in found} == {(8, 4, 6, 3)}


def test_a_file_without_sound_has_none(clip):
    found = list(video_windows.of_file(clip.with_name("silent.mp4"), FILE_SHAPE, 1.0))
    assert {window.audio for window in found} == {None}
    assert all(window.video is not None for window in found)


def test_files_that_are_none_are_named(clip, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"cannot decode .*broken.mp4"):
        next(video_windows.of_file(tmp_path / "broken.mp4", FILE_SHAPE, 1.0))
    with pytest.raises(FileNotFoundError, match=r"no such media file: .*gone.mp4"):
        next(video_windows.of_file(tmp_path / "gone.mp4", FILE_SHAPE, 1.0))


def test_a_sound_of_no_length_is_refused(tmp_path):
    with wave.open(str(tmp_path / "silent.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
    shape = Shape(frames=0, size=(8, 8), frames_per_second=25, samples=99, sample_rate=16_000)
    with pytest.raises(ValueError, match=r"silent\.wav"):
        list(video_windows.of_file(tmp_path / "silent.wav", shape, 1.0))
    with pytest.raises(ValueError, match="has nothing in it"):
        list(video_windows.of_streams(iter(()), iter(()), shape, 1.0))
