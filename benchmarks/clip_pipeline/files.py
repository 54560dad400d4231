"""Clips for `benchmarks.clip_pipeline`: the same ten seconds as an MP4 file and as a record.

The picture is a cut of a photograph that wanders and zooms, under grain, at 340 x 256 and 25 fps;
the file is H.264 with a key frame every five seconds at most, as YouTube has them.
"""

import pathlib
from collections.abc import Iterator

import cv2
import numpy as np

from data import clip_records
from data.prepare import recording

WIDTH, HEIGHT = 340, 256
KEY_FRAMES = 125  # at most so many frames from one to the next


def pictures(number: int, count: int) -> Iterator[np.ndarray]:  # each [H, W, 3] uint8 RGB
    """Yields the frames of a clip."""
    from sklearn.datasets import load_sample_images

    wholes = load_sample_images().images
    whole = np.ascontiguousarray(wholes[number % len(wholes)])  # 427 x 640
    rng = np.random.default_rng(number)
    grain = rng.normal(0, 3, (8, HEIGHT, WIDTH, 3))
    pace, phase = rng.uniform(0.01, 0.04, 3), rng.uniform(0, 2 * np.pi, 3)
    for frame in range(count):
        x, y, zoom = 0.5 + 0.5 * np.sin(phase + pace * frame)
        width = WIDTH * (1 + 0.25 * zoom)
        height = width * HEIGHT / WIDTH
        centre = (
            width / 2 + x * (whole.shape[1] - width),
            height / 2 + y * (whole.shape[0] - height),
        )
        scale = WIDTH / width
        matrix = np.array(
            [[scale, 0, WIDTH / 2 - scale * centre[0]], [0, scale, HEIGHT / 2 - scale * centre[1]]]
        )
        cut = cv2.warpAffine(whole, matrix, (WIDTH, HEIGHT)) + grain[frame % len(grain)]
        yield np.clip(cut, 0, 255).astype(np.uint8)


def write_mp4(path: pathlib.Path, number: int, seconds: float) -> None:
    """Writes a clip's picture as H.264."""
    import av

    rate = clip_records.FRAMES_PER_SECOND
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = KEY_FRAMES
        for pixels in pictures(number, round(seconds * rate)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def record(path: pathlib.Path, number: int) -> clip_records.Clip:
    """Returns the clip that an MP4 file becomes when it is prepared, with noise for sound."""
    frames = recording.record(path, 0.0, clip_records.SECONDS, is_cut=True).frames
    samples = len(frames) * clip_records.SAMPLE_RATE // clip_records.FRAMES_PER_SECOND
    sound = np.random.default_rng(number).normal(0, 3000, samples).astype(np.int16)
    return clip_records.Clip(path.stem, frames, sound, np.array([number % 2]))


def write(folder: pathlib.Path, name: str, clips: int, seconds: float, copies: int = 1) -> int:
    """Writes MP4 files and the prepared set of the same clips; returns the bytes of its records.

    Args:
      folder: gets NUMBER.mp4 and NAME/1.0.0.
      name: of the prepared set.
      clips: that differ.
      seconds: of each.
      copies: of each, in the prepared set.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    home = folder / name / "1.0.0"
    home.mkdir(parents=True)
    features = clip_records.features(("one", "other"))
    codec = clip_records.Codec(features)
    template = tfds.core.ShardedFileTemplate(
        data_dir=home, dataset_name=name, split="balanced_train", filetype_suffix="array_record"
    )
    writer = ArrayRecordWriter(
        str(template.sharded_filepath(shard_index=0, num_shards=1)), "group_size:1,uncompressed"
    )
    size = 0
    for number in range(clips):
        path = folder / f"{number:03}.mp4"
        write_mp4(path, number, seconds)
        encoded = codec.encode(record(path, number))
        for _ in range(copies):
            writer.write(encoded)
            size += len(encoded)
    writer.close()
    split = tfds.core.SplitInfo(
        name="balanced_train",
        shard_lengths=[clips * copies],
        num_bytes=size,
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=home, features=features, split_infos=[split], check_data=False
    )
    return size
