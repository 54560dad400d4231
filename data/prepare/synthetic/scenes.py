"""`scenes`: synthetic scenes with sound, as media files with AudioSet's lists beside them.

No recording of the world: drawn and computed from a seed (`scene_plans.py` says what is in them).
But the files are real MP4 with H.264 pictures and AAC sound, the lists have the form of AudioSet's,
and what makes the data set out of both is the same function that makes AudioSet's.

    DIR/scenes-files/clips/ID.mp4                     some seconds each
    DIR/scenes-files/balanced_train_segments.csv      id, start, end, classes
    DIR/scenes-files/eval_segments.csv
    DIR/scenes-files/class_labels_indices.csv         number, code and name of a class
    DIR/scenes/1.0.0/                                 the prepared set
"""

import concurrent.futures
import csv
import dataclasses
import functools
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.clips import clip_records, scene_pictures, scene_plans, scene_sounds

SIDE = 64  # pixels of a picture, both ways
SPLITS = ("balanced_train", "eval")
TRAIN_CLIPS, EVAL_CLIPS = 450, 180  # by default
SECONDS = 4.0  # of a clip; AudioSet's ten would take more time and show nothing else


@dataclasses.dataclass(frozen=True)
class Files:
    """What was written, as `clips.prepare` takes it."""

    csvs: tuple[Path, ...]
    clips: Path
    labels: Path


def prepare(
    data_dir: str | Path,
    *,
    train_clips: int = TRAIN_CLIPS,
    eval_clips: int = EVAL_CLIPS,
    seed: int = 0,
    seconds: float = SECONDS,
    processes: int = 1,
    log: Callable[[str], Any] = print,
) -> Any:
    """Writes the media files and prepares the data set `scenes`; returns the report of that.

    What is there already, under the same settings, is kept.

    Raises:
      ImportError: PyAV is not installed.
      ValueError: a count that is no multiple of nine, or files of other settings are there.
    """
    from data.prepare.clips import clips

    files = write(
        Path(data_dir).expanduser() / "scenes-files",
        counts={"balanced_train": train_clips, "eval": eval_clips},
        seed=seed,
        seconds=seconds,
        processes=processes,
        log=log,
    )
    return clips.prepare(
        "scenes",
        files.csvs,
        files.clips,
        data_dir,
        labels=files.labels,
        processes=processes,
        log=log,
    )


def write(
    folder: Path,
    *,
    counts: dict[str, int],
    seed: int,
    seconds: float,
    processes: int,
    log: Callable[[str], Any] = print,
) -> Files:
    """Writes media files and lists into `folder`; errors as in `prepare`."""
    plans = {
        split: scene_plans.draw(count, (seed, SPLITS.index(split)))
        for split, count in counts.items()
    }
    _claim(folder, {"counts": counts, "seed": seed, "seconds": seconds})
    clips = folder / "clips"
    clips.mkdir(exist_ok=True)
    named = {split: {_name(split, i): p for i, p in enumerate(plans[split])} for split in plans}
    everything = {name: plan for some in named.values() for name, plan in some.items()}
    missing = [name for name in everything if not (clips / f"{name}.mp4").exists()]
    log(f"scenes: {len(missing):,} of {len(everything):,} media files to write into {clips}")
    _encode(clips, {name: everything[name] for name in missing}, seconds, processes)
    csvs = tuple(_write_csv(folder, split, named[split], seconds) for split in named)
    return Files(csvs=csvs, clips=clips, labels=_write_labels(folder))


def _name(split: str, index: int) -> str:
    """Eleven characters, as YouTube's."""
    return f"scene{SPLITS.index(split)}{index:05d}"


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    file = folder / "settings.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{folder} holds scenes made with other settings ({file.read_text(encoding='utf-8')}): "
            "remove that folder and the data set made from it, or choose another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings), encoding="utf-8")


def _encode(
    clips: Path, plans: dict[str, scene_plans.ScenePlan], seconds: float, processes: int
) -> None:
    make = functools.partial(_encode_one, clips, seconds)
    if processes <= 1 or len(plans) < 2:
        for name, plan in plans.items():
            make(name, plan)
        return
    # Not by fork: the caller may have threads.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        for _ in pool.map(make, plans, plans.values(), chunksize=8):
            pass  # an error of a worker is raised here


def _encode_one(clips: Path, seconds: float, name: str, plan: scene_plans.ScenePlan) -> None:
    from perceiver.media import video_files

    rate, sample_rate = clip_records.FRAMES_PER_SECOND, clip_records.SAMPLE_RATE
    video_files.write(
        clips / f"{name}.mp4",
        scene_pictures.draw(plan, round(seconds * rate), SIDE, rate),
        scene_sounds.make(plan, round(seconds * sample_rate), sample_rate),
        frames_per_second=rate,
        sample_rate=sample_rate,
    )


def _code(label: str) -> str:
    """A class as lists name it, as `/m/09x0r` is "Speech" in AudioSet."""
    return f"/scene/{label.replace(' ', '_')}"


def _write_csv(
    folder: Path, split: str, plans: dict[str, scene_plans.ScenePlan], seconds: float
) -> Path:
    path = folder / f"{split}_segments.csv"
    labels = [label for plan in plans.values() for label in plan.labels]
    lines = [
        f"# Synthetic scenes, split {split}",
        f"# num_ytids={len(plans)}, num_segs={len(plans)}, "
        f"num_unique_labels={len(set(labels))}, num_positive_labels={len(labels)}",
        "# YTID, start_seconds, end_seconds, positive_labels",
    ]
    for name, plan in plans.items():
        codes = ",".join(map(_code, plan.labels))
        lines.append(f'{name}, {0.0:.3f}, {seconds:.3f}, "{codes}"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _write_labels(folder: Path) -> Path:
    path = folder / "class_labels_indices.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("index", "mid", "display_name"))
        for index, name in enumerate(scene_plans.CLASSES):
            writer.writerow((index, _code(name), name))
    return path
