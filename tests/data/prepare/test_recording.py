"""Media files as they come: timing is kept, and what is wrong gets a name."""

import io
import struct
import wave
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from data.prepare.clips import clip_status, recording
from perceiver.media import video_files, video_windows

av = pytest.importorskip("av", reason="needs PyAV: pip install av")

FRAMES_PER_SECOND = 10
SAMPLE_RATE = 44_100
CLICK = 1.3  # seconds
FRAME = 24, 32
OPTIONS = {"g": "7", "threads": "1"}  # a key frame every 0.7 s


def _shades(seconds):
    """A frame for each tenth of a second, brighter by 5 each time."""
    video = np.zeros((round(seconds * FRAMES_PER_SECOND), *FRAME, 3), np.uint8)
    video[...] = (5 * np.arange(len(video)))[:, None, None, None]
    return video


def _click(seconds, at=CLICK):
    audio = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    audio[round(at * SAMPLE_RATE)] = 1.0
    return audio


def _write(path, video=None, audio=None, *, container=None, times=None, codec="aac"):
    """Writes any container; `times` are milliseconds of the frames."""
    with av.open(str(path), "w", format=container) as output:
        picture = sound = None
        if video is not None:
            picture = output.add_stream("libx264", rate=FRAMES_PER_SECOND, options=OPTIONS)
            picture.height, picture.width = video.shape[1:3]
            picture.pix_fmt = "yuv420p"
            if times is not None:
                picture.codec_context.time_base = Fraction(1, 1000)
        if audio is not None:
            sound = output.add_stream(codec, rate=SAMPLE_RATE)
            sound.layout = "mono"
        for i, pixels in enumerate(() if video is None else video):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            output.mux(picture.encode(frame))
        if picture is not None:
            output.mux(picture.encode())
        if sound is not None:
            shape = sound.codec_context.format.name
            samples = audio if shape.startswith("flt") else (audio * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format=shape, layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, 0
            output.mux(sound.encode(frame))
            output.mux(sound.encode())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def clip(folder):
    """Two seconds with a click."""
    return _write(folder / "clip.mp4", _shades(2), _click(2))


@pytest.fixture(scope="module")
def film(folder):
    """Five seconds, of which a part is wanted; the click is 1.3 s after 2.21 s."""
    return _write(folder / "film.mp4", _shades(5), _click(5, 2.21 + CLICK))


def _levels(found):
    return [np.asarray(Image.open(io.BytesIO(f))).mean() for f in found.frames]


def _expected(start, count):
    instants = start + (np.arange(count) + 0.5) / 25  # half a frame of slack
    return 5 * np.maximum(0, np.floor(10 * instants - 1e-6))


def _click_at(found):
    return np.abs(found.audio.astype(int)).argmax() / 48_000


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "mov"])
def test_picture_and_sound_keep_their_times(folder, suffix):
    # MPEG-TS begins its clock at 1.4 s, MP4 cuts off what AAC puts before the first sample.
    codec = "flac" if suffix == "mkv" else "aac"
    file = _write(folder / f"times.{suffix}", _shades(2), _click(2), codec=codec)
    found = recording.record(file, 0, 2)
    assert (found.status, found.reason) == ("ok", "")
    assert (len(found.frames), found.audio.dtype, len(found.audio)) == (50, np.int16, 96_000)
    # There what AAC puts before the first sample stays, and the picture begins as much later.
    lag = 1024 / SAMPLE_RATE if suffix == "ts" else 0
    np.testing.assert_allclose(_levels(found), _expected(-lag, 50), atol=3)
    assert _click_at(found) == pytest.approx(CLICK + lag, abs=0.002)


def test_a_segment_is_cut_out_of_a_video(film):
    found = recording.record(film, 2.21, 2)
    assert (found.status, len(found.frames), len(found.audio)) == ("ok", 50, 96_000)
    np.testing.assert_allclose(_levels(found), _expected(2.21, 50), atol=3)
    assert _click_at(found) == pytest.approx(CLICK, abs=0.002)


def test_a_cut_clip_is_read_from_its_start(clip, film):
    for found in (recording.record(clip, 30, 2), recording.record(film, 30, 2, is_cut=True)):
        np.testing.assert_allclose(_levels(found), _expected(0, 50), atol=3)
    assert _click_at(recording.record(clip, 30, 2)) == pytest.approx(CLICK, abs=0.002)


def test_frames_of_uneven_rate_are_shown_until_the_next(folder):
    times = [0, 40, 480, 500, 1000, 1900]
    shades = (40 * np.arange(6)).astype(np.uint8)
    video = np.broadcast_to(shades[:, None, None, None], (6, *FRAME, 3)).copy()
    found = recording.record(_write(folder / "vfr.mkv", video, times=times), 0, 1.9)
    instants = 40 * np.arange(len(found.frames)) + 20  # half a frame of slack
    shown = np.searchsorted(times, instants, side="left") - 1
    np.testing.assert_allclose(_levels(found), shades[shown], atol=4)
    assert len(found.frames) == 48
    assert found.status == "silent"


def test_frames_shrink_to_a_shorter_side_of_256(folder):
    video = np.zeros((5, 300, 500, 3), np.uint8)
    video[..., 0], video[:, :, 250:, 1] = 200, 120
    found = recording.record(_write(folder / "large.mp4", video), 0, 0.5)
    picture = np.asarray(Image.open(io.BytesIO(found.frames[3])))
    assert picture.shape == (256, 426, 3)
    np.testing.assert_allclose(picture[128, 20], [200, 0, 0], atol=8)
    np.testing.assert_allclose(picture[128, 400], [200, 120, 0], atol=8)


def test_stereo_is_mixed(folder):
    left = 0.5 * np.sin(np.arange(SAMPLE_RATE) * 2 * np.pi * 440 / SAMPLE_RATE)
    _wav(folder / "stereo.wav", np.stack([left, np.zeros_like(left)], -1))
    found = recording.record(folder / "stereo.wav", 0, 1)
    peak = np.abs(found.audio[5000:-5000]).max() / 32768
    assert found.status == "no_picture"
    assert peak == pytest.approx(0.25, abs=0.01)


def test_sound_alone_and_picture_alone(folder):
    sound = recording.record(_write(folder / "sound.flac", audio=_click(2), codec="flac"), 0, 2)
    assert (sound.status, sound.frames, len(sound.audio)) == ("no_picture", [], 96_000)
    assert _click_at(sound) == pytest.approx(CLICK, abs=0.001)
    picture = recording.record(_write(folder / "picture.webm", _shades(2), container="mp4"), 0, 2)
    assert (picture.status, picture.reason) == ("silent", "no audio")  # and a wrong extension
    assert (len(picture.frames), len(picture.audio)) == (50, 0)


def test_silence_is_told(folder):
    file = _write(folder / "silence.mp4", _shades(2), 1e-5 * _click(2))
    found = recording.record(file, 0, 2)
    assert (found.status, found.reason, len(found.audio)) == ("silent", "silent audio", 96_000)


def test_short_is_told_and_the_worst_of_two_leads(clip, folder):
    found = recording.record(clip, 0, 3)
    assert (found.status, found.reason) == ("short", "2.00 of 3.00 s")
    assert (len(found.frames), len(found.audio)) == (50, pytest.approx(96_000, abs=1500))
    mute = recording.record(_write(folder / "mute.mp4", _shades(2)), 0, 3)
    assert (mute.status, mute.reason) == ("silent", "2.00 of 3.00 s; no audio")


def test_a_gap_in_the_sound_is_silent(folder):
    path = folder / "gap.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        for pts in (*range(0, 4000, 800), *range(12_000, 16_000, 800)):
            samples = np.full((1, 800), 9000, np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, pts, Fraction(1, 8000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    audio = recording.record(path, 0, 2).audio
    assert np.abs(audio[1000:23_000]).min() > 8000
    assert np.abs(audio[25_000:71_000]).max() == 0
    assert np.abs(audio[73_000:95_000]).min() > 8000


def test_a_cover_is_no_picture(folder):
    path = folder / "cover.mp3"
    with av.open(str(path), "w") as output:
        sound = output.add_stream("mp3", rate=SAMPLE_RATE)
        cover = output.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        output.mux([*cover.encode(picture), *cover.encode()])
        frame = av.AudioFrame.from_ndarray(_click(2)[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        output.mux([*sound.encode(frame), *sound.encode()])
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    found = recording.record(path, 0, 2)
    assert (found.status, found.frames) == ("no_picture", [])


def _wav(path, samples, rate=SAMPLE_RATE):  # [S, C] in [-1, 1]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def test_sound_is_kept_when_the_picture_fails(clip, monkeypatch):
    def fail(*_):
        raise ValueError("a size beyond reason")

    monkeypatch.setattr(recording, "encode_jpeg", fail)
    found = recording.record(clip, 0, 2)
    assert (found.status, len(found.audio)) == ("no_picture", 96_000)
    assert found.reason == "no video; ValueError: a size beyond reason"


def test_what_is_broken_is_named(clip, film, folder):
    whole = clip.read_bytes()
    zero_hertz = bytearray(_wav(folder / "a.wav", _click(2)[:, None]).read_bytes())
    struct.pack_into("<II", zero_hertz, 24, 0, 0)
    files = {
        "truncated.mp4": whole[: len(whole) // 2],  # its table of contents was at the end
        "nothing.mp4": b"",
        "text.mkv": b"Not a film.\n" * 100,
        "zero_hertz.wav": bytes(zero_hertz),
        "noise.mp3": np.random.default_rng(0).bytes(5000),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
        found = recording.record(folder / name, 0, 2)
        assert found.status == "broken", name
        assert found.reason, name
        assert str(folder) not in found.reason
        assert (found.frames, len(found.audio)) == ([], 0)
    assert recording.record(folder / "gone.mp4", 0, 2).status == "broken"
    assert recording.record(folder, 0, 2).status == "broken"
    past = recording.record(film, 60, 2)
    assert (past.status, past.reason) == (
        "broken",
        "neither video nor audio at this place",
    )


def test_a_truncated_stream_is_short(folder):
    file = _write(folder / "stream.ts", _shades(8), _click(8))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    found = recording.record(file, 0, 8, is_cut=True)
    assert found.status in ("short", "silent")
    assert 0 < len(found.frames) < 190


def test_damage_within_is_passed_over(folder):
    file = _write(folder / "damaged.ts", _shades(8), _click(8))
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = np.random.default_rng(1).bytes(4000)
    file.write_bytes(content)
    found = recording.record(file, 0, 8)
    assert len(found.frames) == 200
    assert found.status in clip_status.WRITTEN


def test_what_is_shown_again_is_not_encoded_again(clip):
    frames = recording.record(clip, 0, 2).frames
    assert len({id(frame) for frame in frames}) == 20


def test_missing_pyav_is_told(monkeypatch, clip):
    def missing():
        raise ImportError("media files need PyAV")

    monkeypatch.setattr(video_files, "pyav", missing)
    with pytest.raises(ImportError, match="PyAV"):
        recording.record(clip, 0, 2)


# Display matrices (a, b, c, d) of a file, and what players make of the stored pixels.
MATRICES = {
    "as stored": ((1, 0, 0, 1), lambda x: x),
    "a telephone upright": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "upside down": ((-1, 0, 0, -1), lambda x: x[::-1, ::-1]),
    "a telephone on its head": ((0, -1, 1, 0), lambda x: np.rot90(x)),
    "a mirror": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "a mirror below": ((1, 0, 0, -1), lambda x: x[::-1]),
    "a mirror, turned": ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
}


@pytest.mark.parametrize(("matrix", "shown"), MATRICES.values(), ids=MATRICES)
def test_a_video_is_turned_as_players_turn_it(tmp_path, matrix, shown):
    """By all three readers: whole files, windows, and the preparation of data."""
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32], stored[:24, 32:], stored[24:, :32] = (230, 0, 0), (0, 230, 0), (0, 0, 230)
    file = tmp_path / "clip.mp4"
    video_files.write(
        file, np.repeat(stored[None], 10, axis=0), frames_per_second=25, sample_rate=48_000
    )
    content = bytearray(file.read_bytes())
    place = content.find(b"tkhd") + 44
    a, b, c, d = (x << 16 for x in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    file.write_bytes(content)

    def quarters(pixels):
        h, w = pixels.shape[0] // 4, pixels.shape[1] // 4
        return np.asarray(pixels, int)[[h, h, -h, -h], [w, -w, w, -w]]

    video, _ = video_files.read(file, (32, 32), frames_per_second=25, sample_rate=48_000)
    shape = video_windows.Shape(
        frames=4, size=(32, 32), frames_per_second=25, samples=0, sample_rate=48_000
    )
    window = next(video_windows.of_file(file, shape, 1.0))
    recorded = recording.record(file, 0.0, 0.4, is_cut=True)
    jpeg = np.asarray(Image.open(io.BytesIO(recorded.frames[0])))
    for found in (video[0], window.video[0], jpeg):
        np.testing.assert_allclose(quarters(found), quarters(shown(stored)), atol=40)
    assert jpeg.shape == shown(stored).shape
