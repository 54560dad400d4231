"""`clips:NAME`: prepared clips of picture and sound, such as AudioSet (`clips:audioset`).

Training shows one random window of each clip an epoch, evaluation `eval_windows` windows of it:

    video   uint8 [T, S, S, 3]   or [V, T, S, S, 3]; frames at 25 Hz
    audio   float32 [samples]    or [V, samples]; in [-1, 1], at 48 kHz
    labels  bool [K]

A modality that the config switches off is not there; one that a clip lacks is zeros. Evaluation
takes the central 224 / 256 of the shorter side, as of photographs.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from data import prepared
from data.clips import class_balance, clip_labels, video
from data.clips.clip_records import Clip, ClipCodec
from data.clips.windows import ClipWindow, EvenWindows, RandomWindow
from data.dataset import Dataset, DatasetInfo, Example, Source, Transform
from data.images.preprocessing import InceptionCrop
from data.transforms import Keep

CROP = 224 / 256  # of the shorter side, which evaluation keeps
AUGMENTATIONS = ("none", "inception")  # choices of config.data.augment
# Splits that are trained on unless the config says otherwise: those that are there.
_TRAINING = ("balanced_train", "unbalanced_train")
_MAX_THREADS = 16
_MOST_AHEAD = 4 * 2**30  # bytes of batches made before they are asked for


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """Random access to the records of a TFDS data source; frames stay encoded."""

    records: Any  # of bytes
    codec: ClipCodec
    classes: int  # K

    def __len__(self) -> int:
        return len(self.records)

    def example(self, index: int, epoch: int) -> Example:
        """Returns {"frames": JPEG files, "sound": int16 [S'], "labels": bool [K]} of a clip."""
        clip = self.clip(index)
        labels = np.zeros(self.classes, bool)
        labels[clip.labels] = True
        return {"frames": clip.frames, "sound": clip.audio, "labels": labels}

    def name(self, index: int) -> str:
        """Returns the clip's id."""
        return self.clip(index).id

    def clip(self, index: int) -> Clip:
        """Returns a record, taken apart."""
        return self.codec.decode(self.records[index])


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split; see `split_name` for its name among the prepared ones.

    With `config.class_balanced` an epoch is as many draws as the split has clips, with repeats: see
    `data.clips.class_balance`.
    """
    check(config)
    builder = open_builder(config)
    name = split_name(builder, split, config)
    source: Source = open_clips(builder, name)
    if train and config.class_balanced:
        labels = clip_labels.read(builder, name, source)
        weights = class_balance.shares(labels, source.classes)
        source = class_balance.BalancedClips(source, weights, seed)
    return Dataset(source, transforms(config, train=train), _threads(config, train))


def transforms(config: Any, *, train: bool) -> tuple[Transform, ...]:
    """Returns the transforms of a clip, from encoded frames to what a batch holds."""
    window = ClipWindow(config.frames * config.video, config.audio_samples * config.audio)
    augment = train and config.augment == "inception"
    crop = InceptionCrop(config.image_size, 3, tuple(config.crop_area)) if augment else None
    steps: list[Transform] = [
        RandomWindow(window, config.time_jitter)
        if train
        else EvenWindows(window, config.eval_windows)
    ]
    if config.video:
        steps.append(video.DecodeCrop(config.image_size, crop, CROP))
        steps += [video.Flip()] * augment
        steps += [video.Colour(config.colour)] * (augment and config.colour > 0)
    kept = ("video",) * config.video + ("audio",) * config.audio
    return (*steps, Keep((*kept, "labels")))


def info(config: Any) -> DatasetInfo:
    """Returns the facts from the builder's metadata; no clip is read."""
    builder = open_builder(config)
    names = {split: split_name(builder, split, config) for split in ("train", "validation")}
    return DatasetInfo(
        name=config.source,
        examples={split: builder.info.splits[name].num_examples for split, name in names.items()},
        labels=_classes(builder),
        image_shape=(config.image_size, config.image_size, 3),
        crop_fraction=CROP,
    )


def open_builder(config: Any) -> Any:
    """Returns the TFDS builder of prepared clips.

    Raises:
      ValueError: the files hold something else than clips, or are in another format.
      FileNotFoundError: the clips are not prepared in `config.data_dir`.
    """
    name = config.source.partition(":")[2]
    builder = prepared.open_builder(name, config.data_dir, lambda to: _prepare_command(name, to))
    features = builder.info.features
    missing = {"id", "video", "audio", "labels"} - set(features)
    if missing or not hasattr(features["labels"], "feature"):
        raise ValueError(
            f"{name!r} is not a data set of clips: it has the features {sorted(features)} but "
            f"lacks {sorted(missing) or 'a sequence of classes'}; prepare clips with `python -m "
            "data.prepare audioset`, or read images with data.source=tfds:NAME"
        )
    return builder


def open_clips(builder: Any, split: str) -> Clips:
    """Returns the clips of a prepared split, or of several: "a+b", "a[:90%]"."""
    import tensorflow_datasets as tfds

    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    records = builder.as_data_source(split=split, deserialize_method=raw)
    return Clips(records, ClipCodec(builder.info.features), len(_classes(builder)))


def split_name(builder: Any, split: str, config: Any) -> str:
    """Returns the prepared splits of "train" or "validation".

    `config.train_split` and `config.eval_split` win. When empty: all of balanced_train and
    unbalanced_train that are there, and eval.

    Raises:
      ValueError: there is no such split.
    """
    existing = list(builder.info.splits)
    field = "train_split" if split == "train" else "eval_split"
    automatic = _TRAINING if split == "train" else ("eval",)
    parts = getattr(config, field).split("+") if getattr(config, field) else automatic
    present = [part for part in parts if part.partition("[")[0] in existing]
    if not present or (getattr(config, field) and len(present) < len(parts)):
        raise ValueError(
            f"{config.source} has no split {' or '.join(parts)}, only {existing}: set data.{field}"
        )
    return "+".join(present)


def _classes(builder: Any) -> tuple[str, ...]:
    return tuple(builder.info.features["labels"].feature.names)


def _prepare_command(name: str, folder: Path) -> str:
    if name == "scenes":
        return f"`python -m data.prepare scenes --out {folder}`"
    option = "" if name == "audioset" else f" --name {name}"
    words = f"audioset --csv SEGMENTS.csv --clips MEDIA --out {folder}{option}"
    return f"`python -m data.prepare {words}`"


def _threads(config: Any, train: bool) -> int:
    """Returns as many threads as keep what they make ahead within memory.

    Each thread makes a batch, and so many and one more may wait: a batch of AudioSet's evaluation
    takes 81 MB for each of its clips.
    """
    frame = 3 * config.image_size**2
    window = config.frames * frame * config.video + 4 * config.audio_samples * config.audio
    windows = config.batch_size if train else config.eval_batch_size * config.eval_windows
    most = (_MOST_AHEAD // (window * windows) - 1) // 2
    return max(1, min(os.cpu_count() or 1, _MAX_THREADS, most))


def check(config: Any) -> None:
    """Raises ValueError for settings that clips do not go with."""
    if not (config.video or config.audio):
        raise ValueError(
            "data.video and data.audio are both False: set at least one of them to True"
        )
    for field in ("frames", "audio_samples", "eval_windows", "image_size"):
        if getattr(config, field) < 1:
            raise ValueError(f"data.{field} must be at least 1, got {getattr(config, field)}")
    if config.time_jitter < 0:
        raise ValueError(f"data.time_jitter must be at least 0, got {config.time_jitter}")
    if config.augment not in AUGMENTATIONS:
        raise ValueError(
            f"data.augment {config.augment!r} does not apply to clips: choose one of "
            f"{AUGMENTATIONS}"
        )
    if config.rand_augment_layers:
        raise ValueError("data.rand_augment_layers applies to images only: set it to 0 for clips")
    video.Colour(config.colour)
