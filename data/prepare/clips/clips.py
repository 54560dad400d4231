"""Tables of segments and a folder of media files -> a TFDS data set of clips."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.prepare.clips import assembly, plans, recording, segments


def prepare(
    name: str,
    csvs: Sequence[str | Path],
    clips_dir: str | Path,
    data_dir: str | Path,
    labels: str | Path | None = None,
    *,
    processes: int = 0,
    clips_per_shard: int = plans.CLIPS_PER_SHARD,
    settings: Mapping[str, Any] | None = None,
    description: str = "Clips of picture and sound, several labels each.",
    run: assembly.RunJobs | None = None,
    log: assembly.Log = print,
) -> assembly.PreparationReport:
    """Returns the report of a data set that is there afterwards; says what it does by `log`.

    Args:
      name: the data set's; small letters, digits and `_`.
      csvs: segments files, each of which is a split.
      clips_dir: the folder of media files, see `media_index`.
      data_dir: where data sets lie; empty for TFDS's own folder.
      labels: `class_labels_indices.csv`; None for AudioSet's 527.
      processes: how many decode at once; 0 for one on each core.
      clips_per_shard: segments with a file to a shard.
      settings: what else the content depends on, fit for JSON.
      description: a sentence for TFDS.
      run: writes the shards; None for processes of this machine.
      log: takes lines of progress.

    Raises:
      FileNotFoundError: a table or the folder is not there, or no segment has a file.
      ValueError: a table cannot be understood, the folder holds files of other settings, or no file
        could be decoded.
    """
    tables, settings_here, names = _inputs(name, csvs, labels, clips_per_shard, settings)
    folder = Path(clips_dir)

    def plan(work: Path, classes: Path) -> dict[str, assembly.SplitJobs]:
        made = plans.make(tables, folder, work)
        splits = {
            plan.split: assembly.SplitJobs(
                plan.jobs(name, work, folder, classes, clips_per_shard), plan.report
            )
            for plan in made
        }
        if not any(split.jobs for split in splits.values()):
            raise FileNotFoundError(
                f"none of {sum(map(len, tables.values())):,} segments has a file under "
                f"{clips_dir}: files must be named VIDEO.mp4, VIDEO_START.mp4 or the like"
            )
        return splits

    return assembly.assemble(
        name,
        names,
        data_dir,
        settings_here,
        list(tables),
        plan,
        description=description,
        run=run or assembly.by_processes(processes),
        log=log,
    )


def _inputs(
    name, csvs, labels, clips_per_shard, settings
) -> tuple[dict[str, list[segments.Segment]], dict[str, Any], Sequence[str]]:
    """Returns (split -> segments, settings, class names)."""
    assembly.check_name(name)
    if clips_per_shard < 1:
        raise ValueError(f"clips_per_shard must be at least 1, got {clips_per_shard}")
    mids, names = segments.read_classes(labels)
    numbers = {mid: index for index, mid in enumerate(mids)}
    tables: dict[str, list[segments.Segment]] = {}
    for csv in csvs:
        split = segments.split_name(csv)
        if split in tables:
            raise ValueError(
                f"two tables have the same split name, {split}: {list(map(str, csvs))}"
            )
        tables[split] = segments.read(csv, numbers)
    if not tables:
        raise ValueError("give at least one table, such as eval_segments.csv")
    return (
        tables,
        {
            "segments": {split: _digest(map(str, table)) for split, table in tables.items()},
            "classes": _digest([*mids, *names]),
            "clips_per_shard": clips_per_shard,
            **recording.SETTINGS,
            "display_matrix": "applied",  # before, frames were kept as stored
            **(settings or {}),
        },
        names,
    )


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
