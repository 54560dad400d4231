"""Decodes the part of a media file that a segment means, at the rates of `data.clips.clip_records`.

Picture and sound keep their presentation times, from the start of the segment on: picture that
begins late shows its first frame before, sound that begins late or has a gap is silent there.
Whatever a file is like, one entry says how it went; none ends a preparation.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.clips import clip_records
from data.prepare.clips import clip_status
from perceiver.media import video_files

JPEG_QUALITY = 90
CUT_SLACK = 1.0  # seconds that a file may be longer than its segment and still be its clip
GAP = 0.05  # seconds; timestamps that deviate less are rounding, not silence
SEEK_MARGIN = 0.25  # seconds decoded before the start, for filters to settle

# Preparation runs a process on each core already.
cv2.setNumThreads(1)

_RATE = clip_records.SAMPLE_RATE
_FRAMES = clip_records.FRAMES_PER_SECOND

Part = tuple[float, float, bool]  # start, seconds, whether the file is the clip

# What the content of a data set depends on.
SETTINGS = {
    "frames_per_second": _FRAMES,
    "sample_rate": _RATE,
    "side": clip_records.SIDE,
    "jpeg_quality": JPEG_QUALITY,
}


def record(
    file: str | Path, start: float, seconds: float, *, is_cut: bool = False
) -> clip_status.Recording:
    """Returns `seconds` of a file from `start` on.

    Args:
      file: any file; what it holds is told by its content, not by its name.
      start: seconds; not used of a file that is the clip: `is_cut`, or as short as one.
      seconds: the segment's length.
      is_cut: the file begins where the segment does.
    """
    part = start, seconds, is_cut
    faults: list[str] = []
    # Apart, so that sound is kept whose picture is beyond repair.
    frames, picture_seconds = _attempt(_picture, file, part, faults) or ([], None)
    audio, sound_seconds = _attempt(_sound, file, part, faults) or (np.zeros(0, np.int16), None)
    covered = [value for value in (picture_seconds, sound_seconds) if value is not None]
    return clip_status.classify(frames, audio, covered, seconds, faults)


def fitted(width: int, height: int) -> tuple[int, int]:
    """Returns (width, height) of a frame as it is kept: even, the shorter side `SIDE` at most."""
    shrink = min(1.0, clip_records.SIDE / min(width, height))
    # The planes of colour are half as wide and high.
    return max(2, 2 * round(width * shrink / 2)), max(2, 2 * round(height * shrink / 2))


def encode_jpeg(pixels: np.ndarray) -> bytes:  # uint8 [H, W, 3], blue first
    """Returns a JPEG file."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _attempt(read: Callable, file: str | Path, part: Part, faults: list[str]) -> Any:
    """Returns what `read` does, or None with another fault."""
    errors = video_files.pyav().FFmpegError
    try:
        return read(file, part, faults)
    # FFmpeg's errors, and what PyAV raises of impossible rates, sizes and times.
    except (errors, OSError, ValueError, ArithmeticError, LookupError) as error:
        faults.append(_named(error))
        return None


def _picture(file, part, faults) -> tuple[list[bytes], float | None]:
    """Returns JPEG files, and the seconds they cover; None where there is no picture."""
    with _open(file) as container:
        _, seconds, _ = part
        # Covers of albums are video streams to FFmpeg.
        cover = video_files.pyav().stream.Disposition.attached_pic
        stream = next((s for s in container.streams.video if not s.disposition & cover), None)
        if stream is None:
            return [], None
        begin = _begin(container, *part)
        step = 1 / float(stream.average_rate or _FRAMES)
        first, end = None, 0.0

        def until_end() -> Iterator[tuple[float, Any]]:
            nonlocal first, end
            for time, frame in _decode(container, stream, step, faults):
                time -= begin
                if time >= seconds - 0.5 / _FRAMES:
                    end = seconds if first is not None else end
                    break
                first = max(0.0, time) if first is None else first
                end = min(time + (_duration(frame) or step), seconds)
                yield time, frame
            yield end, None

        # The decoder holds its frames, so what is shown more than once is encoded once.
        encode = _Encoder()
        jpegs = [encode(frame) for frame in video_files.shown(until_end(), _FRAMES)]
        return jpegs, (end - first if jpegs else None)


def _sound(file, part, faults) -> tuple[np.ndarray, float | None]:
    """Returns int16 [S], and the seconds covered; None where there is no sound."""
    with _open(file) as container:
        stream = next((s for s in container.streams.audio if s.codec_context.sample_rate), None)
        if stream is None:
            return np.zeros(0, np.int16), None
        begin = _begin(container, *part)
        _, seconds, _ = part
        track = _Track(round(seconds * _RATE))
        for time, frame in _decode(container, stream, 0.0, faults):
            time -= begin
            if time >= seconds:
                break
            if time + _duration(frame) > -SEEK_MARGIN:
                track.add(time, frame)
        return track.finish()


class _Encoder:
    """Frames -> JPEG files; the same frame again costs nothing."""

    def __init__(self):
        self._scale = video_files.pyav().video.reformatter.VideoReformatter()
        self._size: tuple[int, int] = (0, 0)  # width, height
        self._last: tuple[Any, bytes] = (None, b"")

    def __call__(self, frame: Any) -> bytes:
        if frame is not self._last[0]:
            self._last = frame, self._encode(frame)
        return self._last[1]

    def _encode(self, frame: Any) -> bytes:
        if not self._size[0]:  # the first frame's; a stream may change its size midway
            self._size = fitted(frame.width, frame.height)
        # Half the time of FFmpeg's own way to RGB: fewer values are scaled, on this thread alone.
        planes = self._scale.reformat(
            frame, *self._size, "yuv420p", dst_colorspace="ITU601", threads=1
        ).to_ndarray()
        pixels = video_files.upright(cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420), frame)
        return encode_jpeg(np.ascontiguousarray(pixels))


class _Track:
    """Frames of sound at any rate -> one channel at ours, each at its time."""

    def __init__(self, samples: int):
        self._samples = np.zeros(samples, np.int16)
        self._resampler, self._kind = None, None
        self._clock = 0.0  # seconds; when the next frame should begin
        self._place = 0  # samples; where it goes
        self._first, self._end = samples, 0  # what was filled

    def add(self, time: float, frame: Any) -> None:
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if kind != self._kind or abs(time - self._clock) > GAP:
            self._flush()
            self._resampler = video_files.pyav().AudioResampler("s16", "mono", _RATE)
            self._kind, self._clock, self._place = kind, time, round(time * _RATE)
        self._clock += _duration(frame)
        self._write(self._resampler.resample(frame))

    def finish(self) -> tuple[np.ndarray, float | None]:
        """Returns the samples up to the end of the sound, and the seconds covered."""
        self._flush()
        if self._end <= self._first:
            return np.zeros(0, np.int16), None
        return self._samples[: self._end], (self._end - self._first) / _RATE

    def _flush(self) -> None:
        if self._resampler is not None:
            self._write(self._resampler.resample(None))

    def _write(self, pieces: list[Any]) -> None:
        for piece in pieces:
            values = piece.to_ndarray()[0]
            first, end = (
                min(max(place, 0), len(self._samples))
                for place in (self._place, self._place + len(values))
            )
            if first < end:
                self._samples[first:end] = values[first - self._place : end - self._place]
                self._first, self._end = min(self._first, first), max(self._end, end)
            self._place += len(values)


def _open(file: str | Path) -> Any:
    # Tags in unknown encodings are nothing to us.
    return video_files.pyav().open(os.fspath(file), metadata_errors="ignore")


def _begin(container, start: float, seconds: float, is_cut: bool) -> float:
    """Goes to the segment; returns where it begins on the file's clock, in seconds."""
    origin = max(0.0, (container.start_time or 0) / 1e6)  # before 0 is what decoders discard
    whole = (container.duration or 0) / 1e6
    if is_cut or 0 < whole <= seconds + CUT_SLACK:
        return origin
    begin = origin + start
    if start > SEEK_MARGIN:
        try:
            container.seek(round((begin - SEEK_MARGIN) * 1e6))  # to the key frame before
        except video_files.pyav().FFmpegError:
            pass  # it cannot be sought in: decode all of it
    return begin


def _decode(container, stream, step: float, faults: list[str]) -> Iterator[tuple[float, Any]]:
    """Yields (seconds on the file's clock, frame), passing over what does not decode."""
    errors = video_files.pyav().FFmpegError
    # Preparation runs a process on each core already.
    stream.codec_context.thread_count = 1
    expected = 0.0
    packets = iter(container.demux(stream))
    while True:
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except errors as error:
            faults.append(_named(error))
            if len(faults) > 1000:  # a demuxer that fails without getting on
                return
            continue
        if packet is None:
            return
        for frame in frames:
            time = expected if frame.time is None else frame.time
            expected = time + (_duration(frame) or step)
            yield time, frame


def _duration(frame: Any) -> float:
    """Returns seconds; 0 where a video frame does not say."""
    if hasattr(frame, "samples"):
        return frame.samples / frame.sample_rate
    return float((frame.duration or 0) * (frame.time_base or 0))


def _named(error: Exception) -> str:
    # Of FFmpeg's errors the words alone: their text has paths and numbers.
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
