"""The labels of all clips of a split, which class balance needs before the first batch.

They lie inside the records, between the frames. So preparation keeps them beside the records as
`labels-SPLIT.npz`; where these are not, or of other records, the set is read from end to end, and
they are kept then. A folder that cannot be written to is no error: the next run reads again.
"""

import contextlib
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.clips.class_balance import ClipLabels
from data.clips.clip_records import Clip


class ClipSource(Protocol):
    """Clips by number."""

    def __len__(self) -> int:
        """Returns how many there are."""

    def clip(self, index: int) -> Clip:
        """Returns one."""


def read(builder: Any, split: str, clips: ClipSource) -> ClipLabels:
    """Returns the labels of the clips of a split.

    Args:
      builder: of prepared clips.
      split: as in `clips.open_clips`; of a part of a split ("a[:90%]") nothing is kept.
      clips: of that split.
    """
    if "[" in split:
        return _scan(clips, range(len(clips)))
    parts, first = [], 0
    for part in split.split("+"):
        last = first + builder.info.splits[part].num_examples
        folder = Path(builder.data_path)
        kept = _kept(folder, part)
        if kept is None:
            kept = _scan(clips, range(first, last))
            with contextlib.suppress(OSError):
                keep(folder, part, kept)
        parts.append(kept)
        first = last
    return ClipLabels.joined(parts)


def keep(folder: Path, split: str, labels: ClipLabels) -> None:
    """Writes the labels of a whole split beside its records, for `read`.

    The file is whole or not there at all: several hosts may write it at once.
    """
    partial = folder / f"labels-{split}-{os.getpid()}.npz"
    np.savez(partial, flat=labels.flat, lengths=labels.lengths, stamp=_stamp(folder, split))
    partial.replace(folder / f"labels-{split}.npz")


def _kept(folder: Path, split: str) -> ClipLabels | None:
    """Returns what `keep` wrote, unless the records have changed since."""
    file = folder / f"labels-{split}.npz"
    if not file.exists():
        return None
    with np.load(file) as archive:
        same = archive["stamp"].tolist() == _stamp(folder, split)
        return ClipLabels(archive["flat"], archive["lengths"]) if same else None


def _scan(clips: ClipSource, numbers: range) -> ClipLabels:
    return ClipLabels.of([clips.clip(number).labels for number in numbers])


def _stamp(folder: Path, split: str) -> list[int]:
    """Returns what changes when a split is prepared again: bytes and times of its files."""
    stats = [file.stat() for file in sorted(folder.glob(f"*-{split}.array_record-?????-of-?????"))]
    return [number for stat in stats for number in (stat.st_size, stat.st_mtime_ns)]
