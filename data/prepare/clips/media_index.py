"""Finds the media file of a segment below a folder, as common download tools name them.

    VIDEO.ext                  the whole video, or its clip
    VIDEO_START.ext            the clip that begins there
    VIDEO_START_END.ext        likewise

Numbers are seconds, with or without decimals, or whole milliseconds; a `Y` may come before. The
folder is scanned once, whatever its size.
"""

import os
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

from data.prepare.clips import segments

# Those with a picture first: of two files of one clip the first kind is taken.
SUFFIXES = (".mp4", ".webm", ".mkv", ".wav", ".flac", ".m4a", ".mp3", ".ogg")

_NUMBER = r"_(\d+(?:\.\d+)?)"
_READINGS = tuple(re.compile(rf"(.+?){_NUMBER * count}") for count in range(3))


class MediaFile(NamedTuple):
    """A file, and what its name tells."""

    path: str  # below the folder that was scanned
    start: str | None  # as written in the name; None: it is not there


class MediaIndex:
    """What a folder holds of some videos."""

    def __init__(self, folder: str | Path, videos: Container[str]):
        """Scans the folder and the folders in it for files of these videos.

        Raises:
          FileNotFoundError: no such folder.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"--clips {self.folder}: no such folder")
        self._files: dict[str, list[MediaFile]] = {}
        for below, _, names in os.walk(self.folder):
            for name in names:
                if name.lower().endswith(SUFFIXES):
                    self._add(Path(below, name), videos)
        for files in self._files.values():
            files.sort(key=_preference)

    def find(self, segment: segments.Segment) -> MediaFile | None:
        """Returns the segment's file: its own clip if there is one, or the video."""
        files = self._files.get(segment.video, ())
        for file in files:
            if file.start is not None and _same_start(file.start, segment.start):
                return file
        return next((file for file in files if file.start is None), None)

    def _add(self, path: Path, videos: Container[str]) -> None:
        for video, start in _readings(path.stem):
            if video in videos:
                file = MediaFile(path.relative_to(self.folder).as_posix(), start)
                self._files.setdefault(video, []).append(file)


def _readings(stem: str) -> Sequence[tuple[str, str | None]]:
    """Returns all (video, start) that a name may mean: ids may hold `_` and digits themselves."""
    readings: list[tuple[str, str | None]] = []
    for pattern in _READINGS:
        match = pattern.fullmatch(stem)
        if match:
            video, *numbers = match.groups()
            start = numbers[0] if numbers else None
            readings.append((video, start))
            if video.startswith("Y"):
                readings.append((video[1:], start))
    return readings


def _same_start(written: str, start: float) -> bool:
    if "." in written:
        return abs(float(written) - start) < 0.01
    return int(written) in (int(start), round(start), round(1000 * start))


def _preference(file: MediaFile) -> tuple[int, str]:
    return SUFFIXES.index(Path(file.path).suffix.lower()), file.path
