"""The labels of all clips of a split, which class balance needs before the first batch.

They lie inside the records, between the frames, so that a set is read from end to end once; the
result is kept beside the records as `labels-SPLIT.npz`. A folder that cannot be written to is no
error: the next run reads again.
"""

import contextlib
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.class_balance import Labels
from data.clip_records import Clip


class Clips(Protocol):
    """Clips by number."""

    def __len__(self) -> int:
        """Returns how many there are."""

    def clip(self, index: int) -> Clip:
        """Returns one."""


def read(builder: Any, split: str, clips: Clips) -> Labels:
    """Returns the labels of the clips of a split.

    Args:
      builder: of prepared clips.
      split: as in `clips.open_clips`; of a part of a split ("a[:90%]") nothing is kept.
      clips: of that split.
    """
    file = Path(builder.data_path) / f"labels-{split}.npz"
    stamp = _stamp(Path(builder.data_path), split)
    if file.exists():
        with np.load(file) as kept:
            if kept["stamp"].tolist() == stamp:
                return Labels(kept["flat"], kept["lengths"])
    labels = Labels.of([clips.clip(index).labels for index in range(len(clips))])
    if "[" not in split:
        with contextlib.suppress(OSError):
            _write(file, labels, stamp)
    return labels


def _write(file: Path, labels: Labels, stamp: list[int]) -> None:
    """Writes a file whole or not at all: several hosts may do so at once."""
    partial = file.with_name(f"{file.stem}-{os.getpid()}.npz")
    np.savez(partial, flat=labels.flat, lengths=labels.lengths, stamp=stamp)
    partial.replace(file)


def _stamp(folder: Path, split: str) -> list[int]:
    """Returns what changes when a split is prepared again: bytes and times of its files."""
    names = {part.partition("[")[0] for part in split.split("+")}
    files = sorted(file for name in names for file in folder.glob(f"*-{name}.array_record*"))
    return [number for file in files for number in (file.stat().st_size, file.stat().st_mtime_ns)]
