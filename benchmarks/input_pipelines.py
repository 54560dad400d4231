"""Examples per second and core of the input pipelines alone. Linux only.

    python -m benchmarks.input_pipelines [--parts PART ...] [--rounds 5] [--examples 512] [--smoke]

PART:
  images  JPEGs as large as ImageNet's (500 x 375): decode, Inception crop, flip, resize to 224,
          normalise, batch, with and without RandAugment, beside tf.data doing the same crop, flip
          and resizing by the calls of the released Perceiver's own pipeline
  clips   ten-second clips of 340 x 256, prepared as AudioSet's are: a random window of 32 frames,
          crop, flip, colour, resizing to 224, and its sound; and the picture alone, without colour
  text    JSON lines (.gz) prepared as a store (--gigabytes), then masked windows out of it

Each side is a process; they take turns, and one that waits is stopped, so that it does not work
ahead. A side that is not installed (TensorFlow) is left out.
"""

import argparse
import contextlib
import gzip
import importlib.util
import itertools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import measure

SIZE = 224
WIDTH, HEIGHT, QUALITY = 500, 375, 96  # of JPEGs
CLIP_SIZE = (256, 340)  # height, width
IMAGES = {"this project": 0, "this project, RandAugment": 4, "tf.data": 0}  # side -> operations
CLIPS = ("this project", "picture alone")
BATCH = {"images": 64, "clips": 8}


def photographs(count: int, width: int, height: int) -> Iterator[Any]:
    """Yields varied cuts of the photographs that scikit-learn holds, as PIL images."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    wholes = [Image.fromarray(pixels) for pixels in load_sample_images().images]  # 640 x 427
    rng = np.random.default_rng(0)
    for number in range(count):
        whole = wholes[number % len(wholes)]
        wide = int(rng.integers(min(width, 560), 561))
        high = min(wide * height // width, whole.height)
        left, top = rng.integers((whole.width - wide + 1, whole.height - high + 1)).tolist()
        yield whole.crop((left, top, left + wide, top + high)).resize((width, height))


def write_images(folder: pathlib.Path, count: int) -> None:
    """Writes JPEGs in two class folders."""
    for number, picture in enumerate(photographs(count, WIDTH, HEIGHT)):
        home = folder / "train" / f"class_{number % 2}"
        home.mkdir(parents=True, exist_ok=True)
        picture.save(home / f"{number:05}.jpg", "JPEG", quality=QUALITY)


def write_clips(folder: pathlib.Path, count: int, seconds: int) -> None:
    """Writes MP4 files whose picture wanders over a photograph, and prepares them."""
    from data.prepare.clips import clips
    from perceiver.media import video_files

    films, rng = folder / "films", np.random.default_rng(0)
    films.mkdir()
    height, width = CLIP_SIZE
    for number, whole in enumerate(photographs(count, 2 * width, 2 * height)):
        pixels, frames = np.asarray(whole), []
        for frame in range(25 * seconds):
            share = 0.5 + 0.5 * np.sin(np.array([0.02, 0.03]) * frame + number)
            top, left = (share * CLIP_SIZE).astype(int)
            frames.append(pixels[top : top + height, left : left + width])
        sound = rng.uniform(-0.5, 0.5, 48_000 * seconds).astype(np.float32)
        path = films / f"{number:011}.mp4"
        video_files.write(path, np.stack(frames), sound, frames_per_second=25, sample_rate=48_000)
    table = folder / "balanced_train_segments.csv"
    lines = (f'{number:011}, 0.0, {float(seconds)}, "/m/09x0r"\n' for number in range(count))
    table.write_text("".join(lines))
    clips.prepare("clips", [table], films, folder, processes=1, log=lambda line: None)


def project_batches(part: str, side: str, folder: pathlib.Path) -> Iterator[Any]:
    """Returns the endless batches of this project, as in training."""
    import data
    from configs import common
    from perceiver.kinds import released

    task = "tagging" if part == "clips" else "classification"
    config = common.get_config(task, released.MODELS["imagenet-fourier"]).data
    config.update(augment="inception", image_size=SIZE)
    if part == "clips":
        config.update(source="clips:clips", data_dir=str(folder))
        if side == "picture alone":
            config.update(audio=False, colour=0.0)
    else:
        config.update(source=f"folder:{folder}", rand_augment_layers=IMAGES[side])
    return data.load(config, "train", batch_size=BATCH[part], seed=0, train=True)


def tf_data_batches(folder: pathlib.Path) -> Iterator[Any]:
    """Returns the endless batches of tf.data."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf

    from perceiver.media.images import IMAGENET_MEAN, IMAGENET_STD

    mean, std = (255 * tf.constant(part, shape=(1, 1, 3)) for part in (IMAGENET_MEAN, IMAGENET_STD))

    def example(path):
        encoded = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(encoded),
            bounding_boxes=tf.constant([0.0, 0.0, 1.0, 1.0], shape=(1, 1, 4)),
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
        )
        window = tf.concat([begin[:2], size[:2]], axis=0)
        image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.random_flip_left_right(image)
        image = tf.image.resize(image, (SIZE, SIZE), tf.image.ResizeMethod.BICUBIC)
        return {"image": (image - mean) / std}

    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    options.deterministic = False
    paths = sorted(map(str, folder.glob("train/*/*.jpg")))
    dataset = tf.data.Dataset.from_tensor_slices(paths).repeat().shuffle(2 * BATCH["images"])
    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(BATCH["images"]).prefetch(tf.data.AUTOTUNE).with_options(options)
    return dataset.as_numpy_iterator()


def serve(part: str, side: str, folder: str, cores: int, examples: int) -> None:
    """Makes a number of examples for each line of standard input."""
    # Before anything starts its threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    home, batch = pathlib.Path(folder), BATCH[part]
    batches = tf_data_batches(home) if side == "tf.data" else project_batches(part, side, home)
    name = "video" if part == "clips" else "image"
    shape = (batch, *((32,) if part == "clips" else ()), SIZE, SIZE, 3)

    def step() -> None:
        for made in itertools.islice(batches, examples // batch):
            if made[name].shape != shape:
                raise RuntimeError(f"not the work that was asked for: {made[name].shape}")

    measure.serve(step)


def race(part: str, options: argparse.Namespace) -> None:
    """Prints a table for one core, and one for all."""
    sides = list({"images": IMAGES, "clips": CLIPS}[part])
    if not importlib.util.find_spec("tensorflow"):
        sides = [side for side in sides if side != "tf.data"]
    examples = options.examples // (1 if part == "images" else 8)
    batch = BATCH[part]
    examples = batch if options.smoke else examples // batch * batch
    with tempfile.TemporaryDirectory() as folder:
        if part == "images":
            write_images(pathlib.Path(folder), batch if options.smoke else 4 * batch)
        else:
            write_clips(pathlib.Path(folder), 2 * batch, 2 if options.smoke else 10)
        for cores in sorted({1, len(os.sched_getaffinity(0))}):
            with contextlib.ExitStack() as stack:
                workers = {}
                for side in sides:
                    words = ["--serve", json.dumps([part, side, folder, cores, examples])]
                    worker = measure.Worker("benchmarks.input_pipelines", words)
                    workers[side] = stack.enter_context(worker)
                timings = measure.race(workers, options.rounds)
            ours, rows = timings[sides[0]], []
            for side, timing in timings.items():
                row = {"cores": cores, "side": side, "wall s": timing.wall, "CPU s": timing.cpu}
                row[f"{part}/s per core"] = examples / timing.wall / cores
                if side != sides[0]:
                    row["wall / ours"] = measure.median_ratio(timing.walls, ours.walls)
                    row["CPU / ours"] = measure.median_ratio(timing.cpus, ours.cpus)
                rows.append(row)
            measure.show(rows)


def text(options: argparse.Namespace) -> None:
    """Prints what preparing text takes, then tokens a second of masked windows."""
    import data
    from configs import masked_lm
    from data.text import masking, stdlib_text

    size = 3_000_000 if options.smoke else int(options.gigabytes * 1e9)
    source, length = stdlib_text.read("train").tobytes(), 10_000
    spans = [source[i : i + length].decode(errors="ignore") for i in range(0, 10**7, length)]
    lines = [json.dumps({"text": span}).encode() + b"\n" for span in spans]
    with tempfile.TemporaryDirectory() as folder:
        path, count = pathlib.Path(folder) / "lines.jsonl.gz", size // length
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.writelines(itertools.islice(itertools.cycle(lines), count))
        command = [sys.executable, "-m", "data.prepare", "text", f"--input={path}"]
        command += [f"--out={folder}", "--name=lines"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=measure.ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        row = {"GB": count * length / 1e9, "lines": count, "CPU s": seconds}
        measure.show([row | {"largest child's peak MiB": after.ru_maxrss / 1024}])
        rows, count = [], 3 if options.smoke else 200
        for seq_len, batch in ((128, 512), (2048, 64)):
            for hidden in masking.MASKINGS:
                config = masked_lm.get_config("embedded").data.copy_and_resolve_references()
                config.update(source="text:lines", data_dir=folder, documents=10)
                config.update(seq_len=seq_len, masking=hidden, batch_size=batch)
                batches = data.load(config, "train", batch_size=batch, seed=0, train=True)
                with contextlib.closing(batches):
                    for _ in range(2 + count // 10):  # threads start, pages of the file are read
                        next(batches)
                    began = time.process_time()
                    for _ in range(count):
                        next(batches)
                    rate = count * batch * seq_len / (time.process_time() - began)
                row = {"window": seq_len, "masking": hidden}
                rows.append(row | {"million tokens per CPU s": rate / 1e6})
        measure.show(rows)


def main() -> None:
    """Prints the tables of each part."""
    parser = measure.parser(__doc__, rounds=5, parts=(*BATCH, "text"))
    parser.add_argument(
        "--examples", type=int, default=512, help="images of each timing; clips an eighth"
    )
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of text to prepare")
    parser.add_argument("--serve", type=json.loads, help="used by the processes it starts")
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    measure.start(options)
    for part in options.parts:
        text(options) if part == "text" else race(part, options)


if __name__ == "__main__":
    main()
