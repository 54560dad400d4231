"""The two sides of `benchmarks.input_pipeline`: processes that prepare batches when told to.

    python -m benchmarks.input_pipeline.sides {ours,tf.data} FOLDER CORES IMAGES LAYERS

Each reads the same photographs from files and gives batches of float32 [B, 224, 224, 3]. This
module imports neither JAX nor TensorFlow; each side imports what it needs.
"""

import itertools
import os
import pathlib
import sys
from collections.abc import Callable

from benchmarks import turns

NAME = "photographs"
BATCH, SIZE = 64, 224


def ours(folder: pathlib.Path, layers: int, images: int) -> Callable[[], None]:
    """Returns a step through `data.load`: array_record files, Grain, threads."""
    import data
    from configs import common
    from perceiver import released

    config = common.get_config("classification", released.MODELS["imagenet-fourier"]).data
    config.update(source=f"tfds:{NAME}", data_dir=str(folder), image_size=SIZE)
    config.update(augment="inception", rand_augment_layers=layers)
    batches = data.load(config, "train", batch_size=BATCH, seed=0, train=True)
    return lambda: _consume(batches, images)


def tf_data(folder: pathlib.Path, layers: int, images: int) -> Callable[[], None]:
    """Returns a step through tf.data, by the calls of the released Perceiver's `dataset.py`."""
    if layers:
        raise ValueError("TensorFlow has no RandAugment of its own to compare with")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf
    from perceiver.images import IMAGENET_MEAN, IMAGENET_STD

    path = str(folder / "photographs.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for number, file in enumerate(sorted(folder.glob("*.jpg"))):
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file.read_bytes()]))
            label = tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 2]))
            features = tf.train.Features(feature={"image": image, "label": label})
            writer.write(tf.train.Example(features=features).SerializeToString())

    mean, std = (255 * tf.constant(part, shape=(1, 1, 3)) for part in (IMAGENET_MEAN, IMAGENET_STD))
    whole = tf.constant([0.0, 0.0, 1.0, 1.0], shape=(1, 1, 4))

    def example(record):
        kinds = {"image": tf.io.FixedLenFeature((), tf.string)}
        kinds["label"] = tf.io.FixedLenFeature((), tf.int64)
        record = tf.io.parse_single_example(record, kinds)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(record["image"]),
            bounding_boxes=whole,
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
        )
        window = tf.concat([begin[:2], size[:2]], axis=0)
        image = tf.image.decode_and_crop_jpeg(record["image"], window, channels=3)
        image = tf.image.random_flip_left_right(image)
        image = tf.image.resize(image, (SIZE, SIZE), tf.image.ResizeMethod.BICUBIC)
        return {"image": (image - mean) / std, "label": tf.cast(record["label"], tf.int32)}

    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    options.deterministic = False
    dataset = tf.data.TFRecordDataset(path).repeat().shuffle(2 * BATCH)
    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE).with_options(options)
    batches = dataset.as_numpy_iterator()
    return lambda: _consume(batches, images)


def _consume(batches, images: int) -> None:
    for batch in itertools.islice(batches, images // BATCH):
        if batch["image"].shape != (BATCH, SIZE, SIZE, 3):
            raise RuntimeError(f"not the work that was asked for: {batch['image'].shape}")


def main() -> None:
    """Keeps to the first CORES of this machine's and serves."""
    side, folder, cores, images, layers = sys.argv[1:]
    # Before anything starts its threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    make = {"ours": ours, "tf.data": tf_data}[side]
    turns.serve(make(pathlib.Path(folder), int(layers), int(images)))


if __name__ == "__main__":
    main()
