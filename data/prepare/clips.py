"""Tables of segments and a folder of media files -> a TFDS data set of clips.

    DATA_DIR/NAME/incomplete_1.0.0/    while it is made; a killed preparation goes on from there
    DATA_DIR/NAME/1.0.0/               the data set, and report-SPLIT.csv: what became of each clip

Shards are made by processes of this machine, or by Apache Beam (`data.prepare.beam`); they hold the
same bytes.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data import clip_records
from data.prepare import plans, recording, segments, shards, writing

VERSION = "1.0.0"  # another content under the same settings is another version

Say = Callable[[str], None]
Run = Callable[[Sequence[shards.Job]], Iterable[Any]]  # writes shards, yields after each


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the segments."""

    folder: Path
    splits: Mapping[str, Mapping[str, int]]  # split -> status -> segments
    existed: bool  # all was there already

    def lines(self) -> list[str]:
        """Returns a line for each split."""
        lines = []
        for split, counts in self.splits.items():
            parts = [f"{counts[s]:,} {s}" for s in recording.STATUSES if counts.get(s)]
            written = sum(counts.get(status, 0) for status in recording.WRITTEN)
            lines.append(
                f"{split}: {written:,} clips of {sum(counts.values()):,} segments "
                f"({', '.join(parts)}); {self.folder / f'report-{split}.csv'}"
            )
        return lines


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
    run: Run | None = None,
    log: Say = print,
) -> Report:
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
    home = writing.default_folder(data_dir) / name
    folder, work = home / VERSION, home / f"incomplete_{VERSION}"
    if folder.exists():
        writing.check_same(folder, settings_here)
        report = Report(folder, {split: _count(folder, split) for split in tables}, existed=True)
        _tell(report, log)
        return report
    classes = _begin(work, settings_here, names)
    try:
        made = plans.make(tables, Path(clips_dir), work)
        jobs = {
            p.split: p.jobs(name, work, Path(clips_dir), classes, clips_per_shard) for p in made
        }
        if not any(jobs.values()):
            raise FileNotFoundError(
                f"none of {sum(map(len, tables.values())):,} segments has a file below "
                f"{clips_dir}: files must be named VIDEO.mp4, VIDEO_START.mp4 or alike"
            )
        _write_shards(jobs, run or _processes(processes), log)
        _join_reports(made, jobs, work)
        _describe(work, name, names, jobs, settings_here, description)
    except (FileNotFoundError, ValueError):
        # Nothing of use is in there, and what is would be in the way of another attempt.
        if not any(work.glob(f"{name}-*")):
            shutil.rmtree(work)
        raise
    work.rename(folder)
    for leftover in (*folder.glob("part_*"), *folder.glob("plan_*"), folder / classes.name):
        leftover.unlink()
    report = Report(folder, {split: _count(folder, split) for split in tables}, existed=False)
    _tell(report, log)
    return report


def _inputs(
    name, csvs, labels, clips_per_shard, settings
) -> tuple[dict[str, list[segments.Segment]], dict[str, Any], Sequence[str]]:
    """Returns (split -> segments, settings, class names)."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"the name must be of small letters, digits and _, got {name!r}")
    if clips_per_shard < 1:
        raise ValueError(f"clips_per_shard must be at least 1, got {clips_per_shard}")
    mids, names = segments.read_classes(labels)
    numbers = {mid: index for index, mid in enumerate(mids)}
    tables: dict[str, list[segments.Segment]] = {}
    for csv in csvs:
        split = segments.split_name(csv)
        if split in tables:
            raise ValueError(f"two tables would be the split {split}: {list(map(str, csvs))}")
        tables[split] = segments.read(csv, numbers)
    if not tables:
        raise ValueError("there must be a table at least, such as eval_segments.csv")
    return (
        tables,
        {
            "segments": {split: _digest(map(str, table)) for split, table in tables.items()},
            "classes": _digest([*mids, *names]),
            "clips_per_shard": clips_per_shard,
            "frames_per_second": clip_records.FRAMES_PER_SECOND,
            "sample_rate": clip_records.SAMPLE_RATE,
            "side": clip_records.SIDE,
            "jpeg_quality": recording.JPEG_QUALITY,
            **(settings or {}),
        },
        names,
    )


def _begin(work: Path, settings: dict[str, Any], names: Sequence[str]) -> Path:
    """Makes the folder to work in, or checks the one that is there; returns the file of classes."""
    work.mkdir(parents=True, exist_ok=True)
    if (work / "metadata.json").exists():
        writing.check_same(work, settings)
    classes = work / "classes.txt"
    classes.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    writing.write_settings(work, settings)
    return classes


def _processes(count: int) -> Run:
    """Returns what writes shards by that many processes."""

    def run(jobs: Sequence[shards.Job]) -> Iterator[Any]:
        workers = min(count or os.cpu_count() or 1, len(jobs))
        if workers <= 1:
            yield from map(shards.write, jobs)
            return
        # Not forked: the parent may have threads, of decoders and of TFDS.
        spawn = multiprocessing.get_context("spawn")
        pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn)
        try:
            for done in concurrent.futures.as_completed(
                [pool.submit(shards.write, j) for j in jobs]
            ):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)

    return run


def _write_shards(jobs: Mapping[str, Sequence[shards.Job]], run: Run, log: Say) -> None:
    wanted = [job for split in jobs.values() for job in split]
    todo = [job for job in wanted if not job.path.exists()]
    clips = sum(len(job.clips) for job in todo)
    there = f"; {len(wanted) - len(todo)} are there" if len(todo) < len(wanted) else ""
    log(f"{clips:,} files to decode, {len(todo)} shards to write{there}")
    begin = time.monotonic()
    for done, _ in enumerate(run(todo), 1):
        seconds = time.monotonic() - begin
        log(f"shard {done} of {len(todo)}, {clips * done / len(todo) / seconds:.1f} clips/s")


def _join_reports(
    made: Sequence[plans.Plan], jobs: Mapping[str, Sequence[shards.Job]], work: Path
) -> None:
    """Writes each split's report in the order of its table."""
    for plan in made:
        parts = (
            row for job in jobs[plan.split] for row in shards.read_rows(job.report, shards.REPORT)
        )
        rows = [
            (segment.clip, "missing", "no file of this name") if file is None else next(parts)
            for segment, file in zip(plan.segments, plan.files, strict=True)
        ]
        shards.write_rows(_report_file(work, plan.split), shards.REPORT, rows)


def _describe(work, name, names, jobs, settings, description) -> None:
    """Writes what TFDS reads: features, splits, lengths of shards."""
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=work, dataset_name=name, filetype_suffix="array_record"
    )
    splits, reasons = [], collections.Counter()
    for split, split_jobs in jobs.items():
        reports = [shards.read_rows(job.report, shards.REPORT) for job in split_jobs]
        reasons.update(row[2] for rows in reports for row in rows)
        lengths = [sum(status in recording.WRITTEN for _, status, _ in rows) for rows in reports]
        if not sum(lengths):  # TFDS has no splits without examples
            for job in split_jobs:
                job.path.unlink()
            continue
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=sum(job.path.stat().st_size for job in split_jobs),
                filename_template=template.replace(split=split),
            )
        )
    if not splits:
        raise ValueError(
            f"none of {sum(reasons.values()):,} files could be decoded: "
            f"{'; '.join(f'{reason} ({n:,})' for reason, n in reasons.most_common(3))}"
        )
    tfds.folder_dataset.write_metadata(
        data_dir=work,
        features=clip_records.features(names),
        split_infos=splits,
        version=VERSION,
        filename_template=template,
        check_data=False,
        description=description,
        metadata=tfds.core.MetadataDict(settings),
    )


def _tell(report: Report, log: Say) -> None:
    log(f"{report.folder} is there already" if report.existed else f"wrote {report.folder}")
    for line in report.lines():
        log(line)


def _count(folder: Path, split: str) -> Mapping[str, int]:
    rows = shards.read_rows(_report_file(folder, split), shards.REPORT)
    return collections.Counter(status for _, status, _ in rows)


def _report_file(folder: Path, split: str) -> Path:
    return folder / f"report-{split}.csv"


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
