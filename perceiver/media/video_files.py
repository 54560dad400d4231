"""Video files with sound <-> arrays, by PyAV (`pip install av`, the extra `media`)."""

import itertools
import math
import os
import pathlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from perceiver.media import images

LONGEST_GAP = 600.0  # seconds that one frame may fill: a broken number shall not fill the memory


def read(
    file: str | os.PathLike,
    size: tuple[int, int],
    *,
    frames_per_second: float,
    sample_rate: int,
    seconds: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (video uint8 [T, H, W, 3], audio float32 [S] in [-1, 1]) of a media file.

    Frames are taken at the given rate (the last one shown at each instant), cut to the central
    square and resized; sound is mixed to one channel. Where there is no sound it is silence.

    Raises:
      FileNotFoundError: no such file.
      ImportError: PyAV is not installed.
      ValueError: it cannot be decoded, or has no picture.
    """
    av = pyav()
    if not pathlib.Path(file).is_file():
        raise FileNotFoundError(f"no such media file: {os.fspath(file)}")
    try:
        with av.open(os.fspath(file)) as container:
            frames = _frames(container, size, frames_per_second, seconds)
        with av.open(os.fspath(file)) as container:
            samples = _samples(container, sample_rate, seconds)
    except av.FFmpegError as error:
        raise ValueError(f"cannot decode {os.fspath(file)}: {error}") from error
    if not len(frames):
        raise ValueError(f"{os.fspath(file)} has no video")
    wanted = round(len(frames) * sample_rate / frames_per_second)
    audio = np.zeros(wanted, np.float32)
    audio[: min(wanted, len(samples))] = samples[:wanted]
    return frames, audio


def write(
    file: str | os.PathLike,
    video: np.ndarray,
    audio: np.ndarray | None = None,
    *,
    frames_per_second: float,
    sample_rate: int,
) -> None:
    """Writes an MP4 file (H.264 and AAC) of uint8 [T, H, W, 3] and float32 [S] in [-1, 1].

    Raises:
      ImportError: PyAV is not installed.
      ValueError: the video has another shape or dtype.
    """
    av = pyav()
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8:
        raise ValueError(f"a video must be uint8 [T, H, W, 3], got {video.dtype} {video.shape}")
    path = pathlib.Path(file)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    rate = Fraction(frames_per_second).limit_denominator(1001)
    try:
        with av.open(os.fspath(partial), "w") as container:
            picture = container.add_stream("libx264", rate=rate)
            picture.height, picture.width = video.shape[1:3]
            # 4:2:0 needs even sides
            even = not (video.shape[1] % 2 or video.shape[2] % 2)
            picture.pix_fmt = "yuv420p" if even else "yuv444p"
            sound = None if audio is None else container.add_stream("aac", rate=sample_rate)
            if sound is not None:
                sound.layout = "mono"
                sound.bit_rate = 192_000
            for pixels in video:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                container.mux(picture.encode(frame))
            container.mux(picture.encode())
            if sound is not None:
                samples = np.clip(audio, -1, 1).astype(np.float32)[None]
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                # Without a time, players would show what AAC puts before the first sample.
                frame.sample_rate, frame.pts = sample_rate, 0
                container.mux(sound.encode(frame))
                container.mux(sound.encode())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def shown(timed: Iterable[tuple[float, Any]], frames_per_second: float) -> Iterator[Any]:
    """Yields what is shown at the instants 0, 1, 2 ... of a rate: the last that came before each.

    Args:
      timed: (seconds, frame), ascending; the first stands for the time before it, the last one's
        time ends the whole and its frame is not shown.
      frames_per_second: the rate.
    """
    count, last = 0, None
    for seconds, frame in timed:
        # Half a frame of slack for rounded times.
        while last is not None and count + 0.5 <= seconds * frames_per_second:
            yield last
            count += 1
        last = frame


def timed(frames: Iterable[Any], frames_per_second: float) -> Iterator[tuple[float, Any]]:
    """Yields (seconds after the first, frame) for `shown`; the last lasts one frame of the rate."""
    start, time = None, 0.0
    for frame in frames:
        last, time = time, frame.time or 0.0
        if start is None:
            start = time
        elif time - last > LONGEST_GAP:
            raise ValueError(
                f"a frame at {time:,.0f} s follows one at {last:,.0f} s, which would fill the time "
                f"between; at most {LONGEST_GAP:,.0f} s are allowed: repair the file's times"
            )
        yield time - start, frame
    if start is not None:
        yield time - start + 1 / frames_per_second, None


def upright(pixels: np.ndarray, frame: Any) -> np.ndarray:
    """Returns a frame's pixels [H, W, ...] as players show them: turned, mirrored, or as they are.

    A telephone stores what its sensor sees, and beside it a display matrix (a, b, c, d): the pixel
    at (x, y) is shown at (a x + c y, b x + d y). Of its angles the nearest right one counts.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def pyav() -> Any:
    """Returns the module `av`.

    Raises:
      ImportError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "media files need PyAV, which is not installed: `pip install av`; arrays work without "
            "it"
        ) from error
    return av


def _frames(container, size, frames_per_second, seconds) -> np.ndarray:
    if not container.streams.video:
        return np.empty((0, *size, 3), np.uint8)
    wanted = None if seconds is None else math.ceil(seconds * frames_per_second)
    frames, fitted, last = [], None, None
    moments = timed(container.decode(video=0), frames_per_second)
    for frame in itertools.islice(shown(moments, frames_per_second), wanted):
        if frame is not last:
            fitted, last = _fit(upright(frame.to_ndarray(format="rgb24"), frame), size), frame
        frames.append(fitted)
    return np.stack(frames) if frames else np.empty((0, *size, 3), np.uint8)


def _fit(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:  # [H', W', 3] -> [H, W, 3]
    picture = images.to_pil(pixels, 3)
    box = images.central_box(picture, 1.0, aspect=size[1] / size[0])
    return images.resize(picture, size, box)


def _samples(container, sample_rate, seconds) -> np.ndarray:
    if not container.streams.audio:
        return np.empty(0, np.float32)
    resampler = pyav().AudioResampler(format="flt", layout="mono", rate=sample_rate)
    parts, total = [], 0
    for frame in container.decode(audio=0):
        for piece in resampler.resample(frame):
            parts.append(piece.to_ndarray()[0])
            total += len(parts[-1])
        if seconds is not None and total >= seconds * sample_rate:
            break
    parts += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    return np.concatenate(parts).astype(np.float32) if parts else np.empty(0, np.float32)
