"""`python -m benchmarks.clip_pipeline`: race, parts, memory. See `benchmarks.clip_pipeline`."""

import argparse
import contextlib
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections import defaultdict

import numpy as np

import benchmarks.clip_pipeline
from benchmarks import table, turns
from benchmarks.clip_pipeline import files, sides
from benchmarks.clip_pipeline.sides import BATCH, CAPTURE, FORMS, FRAMES, NAME, OURS_PICTURE, SIZE

DIFFERENT = 8  # clips
SECONDS = 10.0
SHARD = 32  # clips
CASE = f"{files.WIDTH} x {files.HEIGHT}"


def race(folder: pathlib.Path, cores: int, options: argparse.Namespace) -> list[table.Row]:
    """Returns a row for each form on a number of cores."""
    taken: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
    with contextlib.ExitStack() as stack:
        workers = {}
        for form in FORMS:
            words = (form, str(folder), str(cores), str(options.clips))
            worker = turns.Stopped(sys.executable, sides.__name__, words)
            workers[form] = stack.enter_context(worker)
        for number in range(1 + options.rounds):  # the first fills buffers and is not counted
            for form in list(workers) if number % 2 == 0 else reversed(workers):
                taken[form].append(workers[form].step())
    rows = []
    for form, steps in taken.items():
        found = {
            key: statistics.median(step[key] for step in steps[1:]) for key in ("wall_s", "cpu_s")
        }
        found["clips_per_core_s"] = options.clips / found["wall_s"] / cores
        if form == OURS_PICTURE:
            pairs = list(zip(taken[CAPTURE][1:], steps[1:], strict=True))
            for key, ratio in (("wall_s", "wall_ratio"), ("cpu_s", "cpu_ratio")):
                found[ratio] = statistics.median(a[key] / b[key] for a, b in pairs)
            found["note"] = f"ratios: {CAPTURE} / this"
        case = f"{CASE}, {cores} core{'s' if cores > 1 else ''}"
        rows.append(table.Row(case=case, work=f"{options.clips} clips", form=form, **found))
    return rows


def parts(folder: pathlib.Path, options: argparse.Namespace) -> list[table.Row]:
    """Returns a row for each part of a training example, clip by clip in turn on one thread."""
    from data import audio, clips, memory, opencv, video, windows
    from data.images import InceptionCrop
    from data.transforms import generator

    memory.keep_freed()  # as batches do
    config = sides.settings(folder)
    source = clips.open_clips(clips.open_builder(config), "balanced_train")
    crop, taken = InceptionCrop(SIZE, 3), defaultdict(float)

    def timed(part, work):
        start = time.perf_counter()
        result = work()
        taken[part] += time.perf_counter() - start
        return result

    for number in range(options.clips):
        rng = generator(0, 0, number)
        record = timed("read", lambda: source.records[number % len(source)])  # noqa: B023
        clip = timed("parse", lambda: source.codec.decode(record))  # noqa: B023
        start = int(rng.integers(len(clip.frames) - FRAMES, endpoint=True))
        sample = start * windows.SAMPLES_PER_FRAME
        timed("sound", lambda: audio.cut(clip.audio, sample, config.audio_samples))  # noqa: B023
        box = crop.box(opencv.jpeg_size(clip.frames[start]), rng)
        wanted = clip.frames[start : start + FRAMES]
        cuts = timed("decode", lambda: [opencv.decode_crop(x, box, SIZE) for x in wanted])  # noqa: B023
        stack = timed("resize", lambda: np.stack([opencv.resize(x, SIZE) for x in cuts]))  # noqa: B023
        example = timed("flip", lambda: video.Flip()({"video": stack}, rng))  # noqa: B023
        timed("colour", lambda: video.Colour(config.colour)(example, rng))  # noqa: B023
    whole = sum(taken.values())
    return [
        table.Row(
            case=f"{CASE}, one thread, in turn",
            work=f"{options.clips} clips",
            form=part,
            wall_s=seconds,
            share=seconds / whole,
        )
        for part, seconds in taken.items()
    ]


def memory(folder: pathlib.Path, options: argparse.Namespace) -> list[table.Row]:
    """Returns rows of the memory of this process after a tenth of the hours, and after all."""
    import data

    config = sides.settings(folder / "many")
    batches = data.load(config, "train", batch_size=BATCH, seed=0, train=True)
    total = max(10, round(options.hours * 3600 / SECONDS / BATCH))
    rows = []
    for number in range(1, total + 1):
        next(batches)
        if number in (total // 10, total):
            clips = number * BATCH
            rows.append(
                table.Row(
                    case=f"{clips * SECONDS / 3600:.3g} hours of clips",
                    work=f"{clips} clips of {batches.num_examples}",
                    form="memory now",
                    resident_mib=resident_mib(),
                )
            )
    batches.close()
    return rows


def preparing(folder: pathlib.Path, options: argparse.Namespace) -> list[table.Row]:
    """Returns rows of the memory of this process after the first shard of clips, and the last."""
    from data.prepare import clips
    from perceiver import media

    count = max(2 * SHARD, round(options.hours * 3600 / SECONDS))
    media_files = folder / "media"
    media_files.mkdir(parents=True)
    first = media_files / "00000000000.mp4"
    rng = np.random.default_rng(0)
    video = np.repeat(rng.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8), 5, axis=0)
    sound = rng.uniform(-0.5, 0.5, round(SECONDS * 48_000)).astype(np.float32)
    media.write(first, video, sound, frames_per_second=25, sample_rate=48_000)
    names = [f"{number:011}" for number in range(count)]
    for name in names[1:]:
        (media_files / f"{name}.mp4").hardlink_to(first)
    segments = folder / "eval_segments.csv"
    segments.write_text("".join(f'{name}, 0.0, {SECONDS}, "/m/09x0r"\n' for name in names))
    held = []

    def log(line: str) -> None:
        if line.startswith("shard "):
            held.append(resident_mib())

    more = {"processes": 1, "clips_per_shard": SHARD, "log": log}
    report = clips.prepare("many", [segments], media_files, folder, **more)
    if report.splits["eval"] != {"ok": count}:
        raise RuntimeError(f"not all of {count} clips are there: {report.lines()}")
    return [
        table.Row(
            case=f"{clip_count * SECONDS / 3600:.3g} hours of clips",
            work=f"{clip_count} clips prepared",
            form="memory now",
            resident_mib=mib,
        )
        for clip_count, mib in ((SHARD, held[0]), (count, held[-1]))
    ]


def resident_mib() -> float:
    """Returns what this process holds in memory now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Prints a block of rows for one core, one for all, one of parts, and two of memory."""
    parser = table.parser(
        benchmarks.clip_pipeline.__doc__, rounds=5, prog="python -m benchmarks.clip_pipeline"
    )
    parser.add_argument("--clips", type=int, default=64, help="of each timing")
    parser.add_argument("--hours", type=float, default=10.0, help="of clips, to watch memory over")
    options = parser.parse_args()
    options.clips = BATCH * max(1, (BATCH if options.smoke else options.clips) // BATCH)
    seconds, different, copies = (1.5, 2, 4) if options.smoke else (SECONDS, DIFFERENT, 16)
    if options.smoke:
        options.hours = 0.0
    report = table.Report(options)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        size = files.write(folder, NAME, different, seconds)
        many = files.write(folder / "many", NAME, 1, seconds, copies * different)
        films = [file.stat().st_size for file in folder.glob("*.mp4")]
        print(
            f"{different} clips of {seconds:g} s: {size / different / 1e6:.2g} MB as a record, "
            f"{sum(films) / different / 1e6:.2g} MB as H.264; for memory {many / 1e6:,.0f} MB"
        )
        for cores in sorted({1, len(os.sched_getaffinity(0))}):
            report.add(*race(folder, cores, options))
        report.add(*parts(folder, options))
        report.add(*memory(folder, options))
        report.add(*preparing(folder / "prepared", options))
    report.write("clip_pipeline")


if __name__ == "__main__":
    main()
