"""`python -m benchmarks.input_pipeline`: a row for each side. See `benchmarks.input_pipeline`."""

import argparse
import contextlib
import io
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

import benchmarks.input_pipeline
from benchmarks import table, turns
from benchmarks.input_pipeline.sides import BATCH, NAME

SIDES = "benchmarks.input_pipeline.sides"
PHOTOGRAPHS = 256
WIDTH, HEIGHT, QUALITY = 500, 375, 96
OURS, OURS_RANDOM, PEER = "ours", "ours, RandAugment", "tf.data"


def photographs(count: int) -> list[bytes]:
    """Returns JPEGs of varied cuts of the photographs that scikit-learn holds."""
    from sklearn.datasets import load_sample_images

    wholes = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    encoded = []
    for number in range(count):
        whole = wholes[number % len(wholes)]  # 640 x 427
        width = int(rng.integers(WIDTH, whole.width))
        height = min(width * HEIGHT // WIDTH, whole.height)
        left, top = rng.integers((whole.width - width + 1, whole.height - height + 1)).tolist()
        file = io.BytesIO()
        cut = whole.crop((left, top, left + width, top + height)).resize((WIDTH, HEIGHT))
        cut.save(file, "JPEG", quality=QUALITY)
        encoded.append(file.getvalue())
    return encoded


def write(folder: pathlib.Path, pictures: list[bytes]) -> None:
    """Writes pictures as files, and as a prepared data set of TFDS."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    for number, picture in enumerate(pictures):
        (folder / f"{number:05}.jpg").write_bytes(picture)
    image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
    label = tfds.features.ClassLabel(names=("temple", "flower"))
    features = tfds.features.FeaturesDict({"image": image, "label": label})
    home = folder / NAME / "1.0.0"
    home.mkdir(parents=True)
    template = tfds.core.ShardedFileTemplate(
        data_dir=home, dataset_name=NAME, split="train", filetype_suffix="array_record"
    )
    path = template.sharded_filepath(shard_index=0, num_shards=1)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for number, picture in enumerate(pictures):
        example = {"image": io.BytesIO(picture), "label": number % 2}
        writer.write(features.serialize_example(features.encode_example(example)))
    writer.close()
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=[len(pictures)], num_bytes=0, filename_template=template
    )
    tfds.folder_dataset.write_metadata(
        data_dir=home, features=features, split_infos=[split], check_data=False
    )


def has_tensorflow(python: str) -> bool:
    """Tells whether an interpreter exists and can import TensorFlow."""
    if not shutil.which(python):
        return False
    asked = [python, "-c", "import tensorflow"]
    return not subprocess.run(asked, capture_output=True, check=False).returncode


def race(folder: str, cores: int, options: argparse.Namespace) -> list[table.Row]:
    """Returns a row for each side on a number of cores."""
    forms = {OURS: ("ours", 0), OURS_RANDOM: ("ours", 4)}
    if options.peer:
        forms[PEER] = ("tf.data", 0)
    taken: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
    with contextlib.ExitStack() as stack:
        sides = {}
        for form, (side, layers) in forms.items():
            python = options.peer_python if form == PEER else sys.executable
            words = (side, folder, str(cores), str(options.images), str(layers))
            sides[form] = stack.enter_context(turns.Stopped(python, SIDES, words))
        for number in range(1 + options.rounds):  # the first fills buffers and is not counted
            for form in list(sides) if number % 2 == 0 else reversed(sides):
                taken[form].append(sides[form].step())
    rows = []
    for form, steps in taken.items():
        walls, cpus = ([step[key] for step in steps[1:]] for key in ("wall_s", "cpu_s"))
        found = {"wall_s": statistics.median(walls), "cpu_s": statistics.median(cpus)}
        found["images_per_core_s"] = options.images / found["wall_s"] / cores
        if options.peer and form == OURS:
            peer = taken[PEER][1:]
            pairs = list(zip(peer, steps[1:], strict=True))
            for key, ratio in (("wall_s", "wall_ratio"), ("cpu_s", "cpu_ratio")):
                found[ratio] = statistics.median(a[key] / b[key] for a, b in pairs)
            found["note"] = "ratios: tf.data / ours"
        case = f"{WIDTH} x {HEIGHT}, {cores} core{'s' if cores > 1 else ''}"
        work = f"{options.images} images"
        rows.append(table.Row(case=case, work=work, form=form, **found))
    return rows


def main() -> None:
    """Prints a block of rows for one core, and one for all."""
    parser = table.parser(
        benchmarks.input_pipeline.__doc__, rounds=5, prog="python -m benchmarks.input_pipeline"
    )
    parser.add_argument("--images", type=int, default=512, help="of each timing")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PYTHON")
    options = parser.parse_args()
    options.images = BATCH * max(1, (BATCH if options.smoke else options.images) // BATCH)
    options.peer = has_tensorflow(options.peer_python)
    report = table.Report(options)
    with tempfile.TemporaryDirectory() as folder:
        pictures = photographs(BATCH if options.smoke else PHOTOGRAPHS)
        write(pathlib.Path(folder), pictures)
        print(f"{len(pictures)} JPEGs of {np.mean([*map(len, pictures)]) / 1000:.0f} kB")
        if not options.peer:
            print("tf.data left out: no TensorFlow here; see --peer-python")
        for cores in sorted({1, len(os.sched_getaffinity(0))}):
            report.add(*race(folder, cores, options))
    report.write("input_pipeline")


if __name__ == "__main__":
    main()
