"""The sides of `benchmarks.clip_pipeline`: processes that make batches of clips when told to.

    python -m benchmarks.clip_pipeline.sides FORM FOLDER CORES CLIPS

All show the same windows of the same clips through the same batches. This module does not import
JAX.
"""

import dataclasses
import itertools
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import cv2
import ml_collections
import numpy as np

from benchmarks import turns

NAME = "clips"
BATCH, SIZE, FRAMES = 8, 224, 32
OURS, OURS_PICTURE = "ours", "ours, picture alone"
CAPTURE, CAPTURE_START = "VideoCapture", "VideoCapture, from the start"
_HOUR = 3_600_000  # milliseconds
FORMS = (OURS, OURS_PICTURE, CAPTURE, CAPTURE_START)


def settings(folder: pathlib.Path, **fields: Any) -> ml_collections.ConfigDict:
    """Returns the `data` section of a run on AudioSet."""
    from configs import common
    from perceiver import released

    config = common.get_config("tagging", released.MODELS["imagenet-fourier"]).data
    config.update(source=f"clips:{NAME}", data_dir=str(folder), image_size=SIZE)
    config.update(augment="inception", batch_size=BATCH, **fields)
    return config


@dataclasses.dataclass(frozen=True)
class Files:
    """The paths of MP4 files, as a source."""

    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def example(self, index: int, epoch: int) -> dict[str, Any]:
        """Returns {"path", "labels"}."""
        return {"path": self.paths[index], "labels": np.zeros(2, bool)}


@dataclasses.dataclass(frozen=True)
class Capture:
    """Reads a random window by OpenCV's VideoCapture; cuts and resizes as `data.video` does."""

    crop: Any  # data.images.InceptionCrop
    random: bool  # False: from the first frame, so that nothing is sought

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Adds `video`, uint8 [T, S, S, 3]."""
        from data import opencv

        # A side that waits for its turn may be stopped in the middle of a file for long.
        limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _HOUR, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _HOUR)
        threads = (cv2.CAP_PROP_N_THREADS, 1)
        file = cv2.VideoCapture(example["path"], cv2.CAP_FFMPEG, [*threads, *limits])
        if not file.isOpened():
            raise RuntimeError(f"VideoCapture cannot open {example['path']}")
        count = int(file.get(cv2.CAP_PROP_FRAME_COUNT))
        start = int(rng.integers(count - FRAMES, endpoint=True))
        if self.random:
            file.set(cv2.CAP_PROP_POS_FRAMES, start)
        size = tuple(
            int(file.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        left, top, right, bottom = self.crop.box(size, rng)
        video = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
        for row in video:
            found, pixels = file.read()
            if not found:
                raise RuntimeError(f"{example['path']} ends early")
            resized = opencv.resize(pixels[top:bottom, left:right], SIZE)
            cv2.cvtColor(resized, cv2.COLOR_BGR2RGB, dst=row)
        file.release()
        return example | {"video": video}


def batches(form: str, folder: pathlib.Path) -> Any:
    """Returns the endless batches of a form."""
    import data
    from data import video
    from data.batches import Batches
    from data.dataset import Dataset
    from data.images import InceptionCrop
    from data.transforms import Keep

    if form in (OURS, OURS_PICTURE):
        fields = {"audio": False, "colour": 0.0} if form == OURS_PICTURE else {}
        return data.load(settings(folder, **fields), "train", batch_size=BATCH, seed=0, train=True)
    capture = Capture(InceptionCrop(SIZE, 3), random=form == CAPTURE)
    steps = (capture, video.Flip(), Keep(("video", "labels")))
    files = Files(tuple(map(str, sorted(folder.glob("*.mp4")))))
    threads = min(os.cpu_count() or 1, 16)
    return Batches(Dataset(files, steps, threads), batch_size=BATCH, seed=0, train=True)


def step(form: str, folder: pathlib.Path, clips: int) -> Callable[[], None]:
    """Returns what makes a number of clips."""
    endless = batches(form, folder)

    def make() -> None:
        for batch in itertools.islice(endless, clips // BATCH):
            if batch["video"].shape != (BATCH, FRAMES, SIZE, SIZE, 3) or not batch["mask"].all():
                raise RuntimeError(f"not the work that was asked for: {batch['video'].shape}")

    return make


def main() -> None:
    """Keeps to the first CORES of this machine's and serves."""
    form, folder, cores, clips = sys.argv[1:]
    # Before anything starts its threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    turns.serve(step(form, pathlib.Path(folder), int(clips)))


if __name__ == "__main__":
    main()
