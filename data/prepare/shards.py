"""Segments and their files -> one shard of records, with its part of the report beside it.

A shard is all or nothing: it is written under another name, and gets its own when it is whole. So a
preparation that was killed goes on with the shards that are not there.
"""

import csv
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import clip_records
from data.prepare import recording, segments

Row = tuple[str, str, str]
REPORT = ("clip", "status", "reason")  # the header of reports


class Planned(NamedTuple):
    """A segment that has a file."""

    segment: segments.Segment
    file: str
    is_cut: bool  # the file begins with the segment


@dataclasses.dataclass(frozen=True)
class Job:
    """One shard to write, fit to be sent to another process."""

    path: Path  # the shard's
    clips: Sequence[Planned]
    classes: Path  # a file of class names, one a line

    @property
    def report(self) -> Path:
        return self.path.with_name(f"part_{self.path.name}.csv")


def write(job: Job) -> Path:
    """Writes the shard, unless it is there; returns its path."""
    return write_clips(job.path, job.report, _recorded(job.clips), job.classes)


def write_clips(
    path: Path,
    report: Path,
    clips: Iterable[tuple[clip_records.Clip, str, str]],
    classes: Path,
) -> Path:
    """Writes (clip, status, reason) as a shard and its part of the report; one clip at a time.

    Clips whose status is not one of `recording.WRITTEN` are reported only.
    """
    from array_record.python import array_record_module

    if path.exists():
        return path
    codec = _codec(classes)
    rows: list[Row] = []
    partial = path.with_name(f"partial_{path.name}")
    partial.unlink(missing_ok=True)
    # Groups of one: training reads clips in any order.
    writer = array_record_module.ArrayRecordWriter(str(partial), "group_size:1")
    try:
        for clip, status, reason in clips:
            if status in recording.WRITTEN:
                writer.write(codec.encode(clip))
            rows.append((clip.id, status, reason))
    finally:
        writer.close()
    write_rows(report, REPORT, rows)
    partial.replace(path)  # last: the shard's presence says that all is there
    return path


def write_rows(path: Path, header: Row, rows: Iterable[Row]) -> None:
    """Writes a CSV, whole or not at all."""
    partial = path.with_name(f"partial_{path.name}")
    with partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    partial.replace(path)


def read_rows(path: Path, header: Row) -> list[Row]:
    """Returns what `write_rows` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        found, *rows = csv.reader(file)
    if tuple(found) != header:
        raise ValueError(f"{path} begins with {found}, not with {header}: remove it")
    return [(first, second, third) for first, second, third in rows]


def _recorded(clips: Iterable[Planned]) -> Iterator[tuple[clip_records.Clip, str, str]]:
    for segment, file, is_cut in clips:
        found = recording.record(file, segment.start, segment.seconds, is_cut=is_cut)
        clip = clip_records.Clip(
            id=segment.clip,
            frames=found.frames,
            audio=found.audio,
            labels=np.asarray(segment.labels, np.int64),
        )
        yield clip, found.status, found.reason


@functools.lru_cache(maxsize=4)
def _codec(classes: Path) -> clip_records.Codec:
    names = classes.read_text(encoding="utf-8").splitlines()
    return clip_records.Codec(clip_records.features(names))
