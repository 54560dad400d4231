"""`scenes`: synthetic scenes with sound, drawn when they are asked for; nothing is prepared.

Few and short, to see that a config runs. To learn something, `python -m data.prepare scenes` writes
more of them, as media files (`data.clips.scene_plans` says what is in them).
"""

import dataclasses
import io
from typing import Any

import numpy as np

from data.clips import clips, scene_pictures, scene_plans, scene_sounds
from data.clips.clip_records import FRAMES_PER_SECOND, SAMPLE_RATE
from data.dataset import Dataset, DatasetInfo, Example
from perceiver.media import images

SECONDS = 1.0  # of a clip
SIDE = 64  # pixels of a picture, both ways
CLIPS = {"train": 36, "validation": 18}


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Clips by number; the same whenever they are drawn."""

    plans: tuple[scene_plans.ScenePlan, ...]

    def __len__(self) -> int:
        return len(self.plans)

    def example(self, index: int, epoch: int) -> Example:
        """Returns the same as `clips.Clips.example`."""
        plan = self.plans[index]
        frames = scene_pictures.draw(
            plan, round(SECONDS * FRAMES_PER_SECOND), SIDE, FRAMES_PER_SECOND
        )
        sound = scene_sounds.make(plan, round(SECONDS * SAMPLE_RATE), SAMPLE_RATE)
        labels = np.isin(scene_plans.CLASSES, plan.labels)
        sound = np.round(sound * (2**15 - 1)).astype(np.int16)
        return {"frames": [_jpeg(frame) for frame in frames], "sound": sound, "labels": labels}


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split; its scenes do not depend on the seed."""
    clips.check(config)
    if config.class_balanced:
        raise ValueError("data.class_balanced is for prepared clips; set it to False")
    plans = scene_plans.draw(CLIPS[split], (list(CLIPS).index(split),))
    return Dataset(Scenes(tuple(plans)), clips.transforms(config, train=train))


def info(config: Any) -> DatasetInfo:
    """Returns the facts."""
    return DatasetInfo(
        name=config.source,
        examples=CLIPS,
        labels=scene_plans.CLASSES,
        image_shape=(config.image_size, config.image_size, 3),
        crop_fraction=clips.CROP,
    )


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    images.to_pil(pixels, 3).save(file, "JPEG", quality=95)
    return file.getvalue()
