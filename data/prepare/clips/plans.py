"""Which file each segment comes from, decided once: a preparation that goes on keeps to it.

Files that come into the folder later would move the others from shard to shard.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data.prepare.clips import media_index, segments, shards

CLIPS_PER_SHARD = 256  # about 750 MB of ten seconds each

_HEADER = ("clip", "file", "is")  # of a plan
_CLIP, _VIDEO, _MISSING = "clip", "video", "missing"


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """A split: its segments, and where they are."""

    split: str
    segments: Sequence[segments.Segment]
    files: Sequence[tuple[str, bool] | None]  # of each: path, and whether it begins there

    def jobs(
        self, name: str, folder: Path, clips_dir: Path, classes: Path, clips_per_shard: int
    ) -> list[shards.Files]:
        """Returns the shards of the segments that have a file."""
        there = [
            shards.Planned(segment, str(clips_dir / file[0]), file[1])
            for segment, file in zip(self.segments, self.files, strict=True)
            if file is not None
        ]
        count = -(-len(there) // clips_per_shard)
        return [
            shards.Files(
                path=shards.path(folder, name, self.split, shard, count),
                planned=there[shard * clips_per_shard : (shard + 1) * clips_per_shard],
                classes=classes,
            )
            for shard in range(count)
        ]

    def report(self, parts: Iterator[shards.Row]) -> list[shards.Row]:
        """Returns the shards' rows and those of missing files, in the order of the segments."""
        return [
            (segment.clip, "missing", "no file with this name") if file is None else next(parts)
            for segment, file in zip(self.segments, self.files, strict=True)
        ]


def make(
    tables: Mapping[str, Sequence[segments.Segment]], clips_dir: Path, folder: Path
) -> list[SplitPlan]:
    """Returns the plans of all splits, as they are in `folder`, or new ones written there.

    Raises:
      FileNotFoundError: no folder of clips.
    """
    files = {split: path_in(folder, split) for split in tables}
    fresh = [split for split, file in files.items() if not file.is_file()]
    if fresh:
        videos = {segment.video for split in fresh for segment in tables[split]}
        index = media_index.MediaIndex(clips_dir, videos)
        for split in fresh:
            matches = [(segment.clip, index.find(segment)) for segment in tables[split]]
            shards.write_rows(files[split], _HEADER, [_row(clip, file) for clip, file in matches])
    return [
        SplitPlan(split, tables[split], [_file(row) for row in shards.read_rows(file, _HEADER)])
        for split, file in files.items()
    ]


def path_in(folder: Path, split: str) -> Path:
    """Returns where a split's plan lies."""
    return folder / f"plan_{split}.csv"


def _row(clip: str, file: media_index.MediaFile | None) -> shards.Row:
    if file is None:
        return clip, "", _MISSING
    return clip, file.path, _VIDEO if file.start is None else _CLIP


def _file(row: shards.Row) -> tuple[str, bool] | None:
    _, path, kind = row
    return None if kind == _MISSING else (path, kind == _CLIP)
