"""Windows of a video with sound, one after another: a file's length does not grow the process.

Pictures and sounds are two streams, read forward as far as a window needs; what lies before it is
let go.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from perceiver.media import images, video_files

# Of a window: a shorter rest, such as a codec's padding, gets none of its own.
_REST = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What a window is."""

    frames: int  # T; 0: pictures are not read
    size: tuple[int, int]  # height, width
    frames_per_second: float
    samples: int  # S; 0: sound is not read
    sample_rate: int

    @property
    def seconds(self) -> float:
        """How long a window is."""
        return max(self.frames / self.frames_per_second, self.samples / self.sample_rate)


@dataclasses.dataclass(frozen=True, eq=False)
class MediaWindow:
    """A part of a video; what is missing at its end is the last frame, and silence."""

    start: float  # seconds
    video: np.ndarray | None  # uint8 [T, H, W, 3]; None: no picture at this time
    audio: np.ndarray | None  # float32 [S] in [-1, 1]; None: no sound at this time


def of_file(file: str | os.PathLike, shape: Shape, hop: float) -> Iterator[MediaWindow]:
    """Yields windows that start every `hop` seconds, until all of a media file was in one.

    Pictures are cut to the central part that evaluation sees, at the model's aspect ratio.

    Raises:
      FileNotFoundError: no such file.
      ImportError: PyAV is not installed.
      ValueError: it cannot be decoded, or has neither picture nor sound.
    """
    av, name = video_files.pyav(), os.fspath(file)
    if not pathlib.Path(file).is_file():
        raise FileNotFoundError(f"no such media file: {name}")
    try:
        with contextlib.ExitStack() as stack:
            # Each its own: the streams are not read in step.
            pictures, sounds = (stack.enter_context(av.open(name)) for _ in range(2))
            if not sounds.streams.audio and not _moving(pictures):
                raise ValueError(f"{name} has neither video nor audio")
            streams = _pictures(pictures, shape), _sounds(sounds, shape)
            yield from of_streams(*streams, shape, hop, name)
    except av.FFmpegError as error:
        raise ValueError(f"cannot decode {name}: {error}") from error


def of_streams(
    pictures: Iterator[np.ndarray],
    sounds: Iterator[np.ndarray],
    shape: Shape,
    hop: float,
    name: str = "the input",
) -> Iterator[MediaWindow]:
    """Yields the windows of pieces of pictures [n, H, W, 3] and of sounds [n], at least one.

    Raises:
      ValueError: there is neither a frame nor a sample, or `hop` is not positive.
    """
    if not hop > 0:
        raise ValueError(f"hop must be positive: windows cannot start every {hop} seconds")
    pictures, sounds = _Forward(pictures), _Forward(sounds)
    index, going_on = 0, True
    while going_on:
        start = index * hop
        frame, sample = round(start * shape.frames_per_second), round(start * shape.sample_rate)
        video = pictures.take(frame, frame + shape.frames)
        audio = sounds.take(sample, sample + shape.samples)
        window = MediaWindow(
            start, _repeat_last(video, shape.frames), _silence(audio, shape.samples)
        )
        if not index and window.video is None and window.audio is None:
            raise ValueError(f"{name} has nothing in it that the model reads, no frame, no sample")
        yield window
        index += 1
        # Something that this window has not shown, and that the next one will begin with.
        more = max(start + shape.seconds, index * hop) + _REST * shape.seconds
        going_on = pictures.reaches(more * shape.frames_per_second)
        going_on |= sounds.reaches(more * shape.sample_rate)


class _Forward:
    """A stream of pieces [n, ...] as one array, of which a part that only moves on is kept."""

    def __init__(self, pieces: Iterator[np.ndarray]):
        self._pieces = pieces
        self._held: collections.deque[np.ndarray] = collections.deque()
        self._begin = self._end = 0  # of what is held

    def reaches(self, place: float) -> bool:
        """Returns whether there is anything at or after a place."""
        while self._end <= place and self._read():
            pass
        return self._end > place

    def take(self, start: int, stop: int) -> np.ndarray:
        """Returns what lies between, less at the end; all before the start is given up."""
        self._let_go(start)
        while self._end < stop and self._read():
            self._let_go(start)
        if not self._held or start == stop:
            return np.empty(0)
        return np.concatenate(self._held)[max(start - self._begin, 0) : stop - self._begin]

    def _read(self) -> bool:
        piece = next(self._pieces, None)
        if piece is not None:
            self._held.append(piece)
            self._end += len(piece)
        return piece is not None

    def _let_go(self, start: int) -> None:
        while self._held and self._begin + len(self._held[0]) <= start:
            self._begin += len(self._held.popleft())


def _repeat_last(video: np.ndarray, frames: int) -> np.ndarray | None:
    if not len(video):
        return None
    return np.concatenate([video, np.repeat(video[-1:], frames - len(video), axis=0)])


def _silence(audio: np.ndarray, samples: int) -> np.ndarray | None:
    return np.pad(audio, (0, samples - len(audio))) if len(audio) else None


def _moving(container) -> bool:
    """Tells video from the picture of an album's cover."""
    streams = container.streams.video
    cover = video_files.pyav().stream.Disposition.attached_pic
    return bool(streams) and not streams[0].disposition & cover


def _pictures(container, shape: Shape) -> Iterator[np.ndarray]:
    """Yields uint8 [1, H, W, 3] at the rate of frames."""
    if not shape.frames or not _moving(container):
        return
    aspect, last, fitted = shape.size[1] / shape.size[0], None, None
    moments = video_files.timed(container.decode(video=0), shape.frames_per_second)
    for frame in video_files.shown(moments, shape.frames_per_second):
        if frame is not last:
            pixels = video_files.upright(frame.to_ndarray(format="rgb24"), frame)
            picture = images.to_pil(pixels, 3)
            box = images.central_box(picture, images.CROP_FRACTION, aspect=aspect)
            fitted, last = images.resize(picture, shape.size, box)[None], frame
        yield fitted


def _sounds(container, shape: Shape) -> Iterator[np.ndarray]:
    """Yields float32 [n] at the rate of samples, mixed to one channel."""
    if not shape.samples or not container.streams.audio:
        return
    resampler = video_files.pyav().AudioResampler(
        format="flt", layout="mono", rate=shape.sample_rate
    )
    for frame in container.decode(audio=0):
        yield from (piece.to_ndarray()[0] for piece in resampler.resample(frame))
    yield from (piece.to_ndarray()[0] for piece in resampler.resample(None))
