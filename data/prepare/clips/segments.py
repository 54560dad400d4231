"""AudioSet's tables: which part of which video has which classes (research.google.com/audioset).

A segments file has comments that begin with `#`, then a line for each clip:

    --4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_,/m/0bt9lr,/m/0jbk"

`class_labels_indices.csv` numbers the classes: `index,mid,display_name`.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from perceiver.media import labels

_INDICES_HEADER = ["index", "mid", "display_name"]


class Segment(NamedTuple):
    """A part of a video, and what is in it."""

    video: str  # YouTube's id; may begin with "-"
    start: float  # seconds
    end: float  # seconds
    labels: tuple[int, ...]  # indices of classes, ascending

    @property
    def clip(self) -> str:
        """The clip's name in records and reports."""
        return f"{self.video}_{self.start:.3f}"

    @property
    def seconds(self) -> float:
        return self.end - self.start


def split_name(file: str | Path) -> str:
    """Returns `eval` of `eval_segments.csv`.

    Raises:
      ValueError: the name would not do as the name of a TFDS split.
    """
    name = Path(file).stem.removesuffix("_segments")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "all":
        raise ValueError(
            f"{file} gives the invalid split name {name!r}: rename it to lowercase letters, digits "
            "and _, such as eval_segments.csv"
        )
    return name


def read(file: str | Path, classes: Mapping[str, int]) -> list[Segment]:
    """Returns the segments of a CSV in its order; `classes` maps a MID to its index.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line cannot be understood, or comes twice; the message names it.
    """
    rows: list[Segment] = []
    seen: set[str] = set()
    for place, row in _rows(file):
        segment = _segment(place, row, classes)
        if segment.clip in seen:
            raise ValueError(f"{place}: {segment.clip} appears twice: remove one of the lines")
        seen.add(segment.clip)
        rows.append(segment)
    if not rows:
        raise ValueError(f"{file} has no segments: is it one of AudioSet's *_segments.csv?")
    return rows


def read_classes(file: str | Path | None) -> tuple[Sequence[str], Sequence[str]]:
    """Returns (MIDs, display names) in the order of the indices; AudioSet's 527 of None.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line cannot be understood, or indices do not count from 0.
    """
    if file is None:
        return labels.audioset_mids(), labels.audioset()
    mids: list[str] = []
    names: list[str] = []
    for place, row in _rows(file):
        if row == _INDICES_HEADER:
            continue
        if len(row) != 3 or row[0] != str(len(mids)):
            raise ValueError(f"{place}: expected `{len(mids)},MID,display name`, got {row}")
        if row[1] in mids or row[2] in names:
            raise ValueError(f"{place}: class {row[1:]} appears twice")
        mids.append(row[1])
        names.append(row[2])
    if not mids:
        raise ValueError(f"{file} has no classes: expected lines `index,mid,display_name`")
    return mids, names


def _segment(place: str, row: Sequence[str], classes: Mapping[str, int]) -> Segment:
    if len(row) != 4:
        raise ValueError(f'{place}: expected `video, start, end, "mids"`, got {len(row)} fields')
    video, start, end, mids = row
    # It becomes part of a clip's name and is looked for in the names of files.
    if not re.fullmatch(r"[\w-]+", video):
        raise ValueError(f"{place}: {video!r} is not a video id: use only letters, digits, - and _")
    try:
        first, last = float(start), float(end)
    except ValueError:
        raise ValueError(
            f"{place}: start {start!r} and end {end!r} must be numbers of seconds"
        ) from None
    if not (0 <= first < last < math.inf):
        raise ValueError(f"{place}: the segment from {start} to {end} s is empty or not finite")
    unknown = [mid for mid in mids.split(",") if mid.strip() not in classes]
    if unknown:
        raise ValueError(
            f"{place}: {', '.join(map(repr, unknown))} not among the {len(classes)} known classes: "
            "give the matching table of classes as --labels"
        )
    return Segment(video, first, last, tuple(sorted({classes[m.strip()] for m in mids.split(",")})))


def _rows(file: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Yields (file and line number, fields) of all lines but comments and empty ones."""
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, skipinitialspace=True, strict=True)
        try:
            for row in reader:
                if row and not row[0].startswith("#"):
                    yield f"{path}, line {reader.line_num}", [field.strip() for field in row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
