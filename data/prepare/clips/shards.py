"""Segments and their files -> one shard of records, with its parts of report and labels beside it.

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

from data.clips import clip_records
from data.clips.class_balance import ClipLabels
from data.prepare.clips import clip_status, recording, segments

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
    classes: Path  # a file of class names, one a line

    @property
    def size(self) -> int:
        """How much there is to do, to tell progress."""
        raise NotImplementedError

    def clips(self) -> Iterator[tuple[clip_records.Clip, str, str]]:
        """Yields (clip, status, reason), one at a time."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Files(Job):
    """Segments, each with its media file."""

    planned: Sequence[Planned]

    @property
    def size(self) -> int:
        return len(self.planned)

    def clips(self) -> Iterator[tuple[clip_records.Clip, str, str]]:
        for segment, file, is_cut in self.planned:
            recorded = recording.record(file, segment.start, segment.seconds, is_cut=is_cut)
            clip = clip_records.Clip(
                id=segment.clip,
                frames=recorded.frames,
                audio=recorded.audio,
                labels=np.asarray(segment.labels, np.int64),
            )
            yield clip, recorded.status, recorded.reason


def path(folder: Path, name: str, split: str, shard: int, count: int) -> Path:
    """Returns where a shard lies, called as TFDS expects."""
    return folder / f"{name}-{split}.array_record-{shard:05d}-of-{count:05d}"


def write(job: Job) -> Path:
    """Writes the shard, its part of the report and its labels, unless there; returns its path.

    Clips whose status is not one of `clip_status.WRITTEN` are reported only.
    """
    from array_record.python import array_record_module

    if job.path.exists():
        return job.path
    codec = _codec(job.classes)
    rows: list[Row] = []
    labels: list[np.ndarray] = []  # of the clips that are written
    partial = job.path.with_name(f"partial_{job.path.name}")
    partial.unlink(missing_ok=True)
    # Groups of one, as training reads clips in any order; JPEG files do not get smaller.
    writer = array_record_module.ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
    try:
        for clip, status, reason in job.clips():
            if status in clip_status.WRITTEN:
                writer.write(codec.encode(clip))
                labels.append(clip.labels)
            rows.append((clip.id, status, reason))
    finally:
        writer.close()
    write_rows(_report(job), REPORT, rows)
    clip_labels = ClipLabels.of(labels)
    np.savez(_labels(job), flat=clip_labels.flat, lengths=clip_labels.lengths)
    partial.replace(job.path)  # last: the shard's presence says that all is there
    return job.path


def read_report(job: Job) -> list[Row]:
    """Returns a shard's part of the report."""
    return read_rows(_report(job), REPORT)


def read_labels(job: Job) -> ClipLabels:
    """Returns the labels of a shard's clips."""
    with np.load(_labels(job)) as archive:
        return ClipLabels(archive["flat"], archive["lengths"])


def write_rows(path: Path, header: Row, rows: Iterable[Row]) -> None:
    """Writes a CSV, whole or not at all."""
    partial = path.with_name(f"partial_{path.name}")
    with partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    partial.replace(path)


def read_rows(path: Path, header: Row) -> list[Row]:
    """Returns what `write_rows` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        header_row, *rows = csv.reader(file)
    if tuple(header_row) != header:
        raise ValueError(f"{path} starts with {header_row} instead of {header}: remove it")
    return [(first, second, third) for first, second, third in rows]


def _report(job: Job) -> Path:
    return job.path.with_name(f"part_{job.path.name}.csv")


def _labels(job: Job) -> Path:
    return job.path.with_name(f"part_{job.path.name}.npz")


@functools.lru_cache(maxsize=4)
def _codec(classes: Path) -> clip_records.ClipCodec:
    names = classes.read_text(encoding="utf-8").splitlines()
    return clip_records.ClipCodec(clip_records.features(names))
