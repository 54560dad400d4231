"""From shards to a TFDS data set: who writes them, where they lie meanwhile, and the reports.

    DATA_DIR/NAME/incomplete_1.0.0/    while it is made; a killed preparation goes on from there
    DATA_DIR/NAME/1.0.0/               the data set, and report-SPLIT.csv: what became of each clip

Shards are made by processes of this machine, or by Apache Beam (`data.prepare.clips.beam`); they
hold the same bytes.
"""

import collections
import concurrent.futures
import dataclasses
import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.clips import clip_labels, clip_records
from data.clips.class_balance import ClipLabels
from data.prepare import writing
from data.prepare.clips import clip_status, shards

VERSION = "1.0.0"  # another content under the same settings is another version

Log = Callable[[str], None]
RunJobs = Callable[[Sequence[shards.Job]], Iterable[Any]]  # writes shards, yields after each


@dataclasses.dataclass(frozen=True)
class SplitJobs:
    """Shards to write, and how their parts of the report become one."""

    jobs: Sequence[shards.Job]
    report: Callable[[Iterator[shards.Row]], Iterable[shards.Row]] = iter


@dataclasses.dataclass(frozen=True)
class PreparationReport:
    """What became of the segments."""

    folder: Path
    splits: Mapping[str, Mapping[str, int]]  # split -> status -> segments
    existed: bool  # all was there already

    def lines(self) -> list[str]:
        """Returns a line for each split."""
        lines = []
        for split, counts in self.splits.items():
            parts = [f"{counts[s]:,} {s}" for s in clip_status.STATUSES if counts.get(s)]
            written = sum(counts.get(status, 0) for status in clip_status.WRITTEN)
            lines.append(
                f"{split}: {written:,} clips of {sum(counts.values()):,} segments "
                f"({', '.join(parts)}); {self.folder / f'report-{split}.csv'}"
            )
        return lines


def assemble(
    name: str,
    classes: Sequence[str],
    data_dir: str | Path,
    settings: Mapping[str, Any],
    splits: Sequence[str],
    plan: Callable[[Path, Path], Mapping[str, SplitJobs]],
    *,
    description: str,
    run: RunJobs,
    log: Log,
) -> PreparationReport:
    """Returns the report of a data set that is there afterwards.

    Args:
      name: the data set's.
      classes: names.
      data_dir: where data sets lie; empty for TFDS's own folder.
      settings: all that the content depends on, fit for JSON.
      splits: their names.
      plan: (folder to write into, file of class names) -> what to write, the same each time.
      description: a sentence for TFDS.
      run: writes the shards.
      log: takes lines of progress.

    Raises:
      ValueError: the folder holds files of other settings, or nothing could be decoded.
    """
    settings = dict(settings)
    home = writing.default_folder(data_dir) / name
    folder, work = home / VERSION, home / f"incomplete_{VERSION}"
    if folder.exists():
        writing.check_same(folder, settings)
        return _tell(folder, splits, log, existed=True)
    names = _begin(work, settings, classes)
    try:
        planned = plan(work, names)
        _write_shards(planned, run, log)
        for split, content in planned.items():
            parts = (row for job in content.jobs for row in shards.read_report(job))
            shards.write_rows(_report_file(work, split), shards.REPORT, content.report(parts))
        _describe(work, name, classes, planned, settings, description)
        _keep_labels(work, planned)
    except (FileNotFoundError, ValueError):
        # Nothing of use is in there, and what is would be in the way of another attempt.
        if not any(work.glob(f"{name}-*")):
            shutil.rmtree(work)
        raise
    work.rename(folder)
    for leftover in (*folder.glob("part_*"), *folder.glob("plan_*"), folder / names.name):
        leftover.unlink()
    return _tell(folder, splits, log, existed=False)


def check_name(name: str) -> None:
    """Raises ValueError for what would not do as a data set's name."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"the name must consist of lowercase letters, digits and _, got {name!r}")


def _begin(work: Path, settings: dict[str, Any], classes: Sequence[str]) -> Path:
    """Makes the folder to work in, or checks the one that is there; returns the file of classes."""
    work.mkdir(parents=True, exist_ok=True)
    if (work / "metadata.json").exists():
        writing.check_same(work, settings)
    names = work / "classes.txt"
    names.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    writing.write_settings(work, settings)
    return names


def by_processes(count: int) -> RunJobs:
    """Returns what writes shards by that many processes; 0 for one on each core."""

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


def _write_shards(planned: Mapping[str, SplitJobs], run: RunJobs, log: Log) -> None:
    wanted = [job for split in planned.values() for job in split.jobs]
    todo = [job for job in wanted if not job.path.exists()]
    clips = sum(job.size for job in todo)
    there = f"; {len(wanted) - len(todo)} already exist" if len(todo) < len(wanted) else ""
    log(f"{clips:,} clips to read, {len(todo)} shards to write{there}")
    begin = time.monotonic()
    for done, _ in enumerate(run(todo), 1):
        seconds = time.monotonic() - begin
        log(f"shard {done} of {len(todo)}, {clips * done / len(todo) / seconds:.1f} clips/s")
    lacking = [job.path.name for job in todo if not job.path.exists()]
    if lacking:
        raise ValueError(
            f"{len(lacking)} shards such as {lacking[0]} were not written: --out must be a folder "
            "that all workers share"
        )


def _describe(work, name, names, planned, settings, description) -> None:
    """Writes what TFDS reads: features, splits, lengths of shards."""
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=work, dataset_name=name, filetype_suffix="array_record"
    )
    splits, reasons = [], collections.Counter()
    for split, content in planned.items():
        reports = [shards.read_report(job) for job in content.jobs]
        reasons.update(row[2] for rows in reports for row in rows)
        lengths = [sum(status in clip_status.WRITTEN for _, status, _ in rows) for rows in reports]
        if not sum(lengths):  # TFDS has no splits without examples
            for job in content.jobs:
                job.path.unlink()
            continue
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=sum(job.path.stat().st_size for job in content.jobs),
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


def _keep_labels(work: Path, planned: Mapping[str, SplitJobs]) -> None:
    """Class balance needs them all at once: to read them from records would take all the data."""
    for split, content in planned.items():
        if content.jobs and content.jobs[0].path.exists():
            parts = [shards.read_labels(job) for job in content.jobs]
            clip_labels.keep(work, split, ClipLabels.joined(parts))


def _tell(folder: Path, splits: Sequence[str], log: Log, *, existed: bool) -> PreparationReport:
    counts = {}
    for split in splits:
        rows = shards.read_rows(_report_file(folder, split), shards.REPORT)
        counts[split] = collections.Counter(status for _, status, _ in rows)
    report = PreparationReport(folder, counts, existed)
    log(f"{folder} already exists" if existed else f"wrote {folder}")
    for line in report.lines():
        log(line)
    return report


def _report_file(folder: Path, split: str) -> Path:
    return folder / f"report-{split}.csv"
