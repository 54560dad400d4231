"""`tfds:NAME`: any image-classification data set of the TensorFlow Datasets catalogue.

Reads prepared array_record files by random access and without TensorFlow, which only preparing
needs. Encoded pictures reach the transforms as bytes, so that they are decoded after the crop is
known. Pictures of one fixed size (MNIST, CIFAR) are evaluated whole, photographs of varying size
by the central 224 / 256 crop.
"""

import dataclasses
import difflib
from pathlib import Path
from typing import Any

from data import prepared
from data.dataset import Dataset, DatasetInfo, Example
from data.images import labelled_images
from perceiver.media.labels import imagenet, imagenet_synsets

_VALIDATION_NAMES = ("validation", "valid", "val", "dev", "test")
# Sets that `python -m data.prepare` makes itself, so that the catalogue does not list them.
OWN_DATASETS = ("glyphs",)


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsImages:
    """Random access to a TFDS data source whose pictures stay encoded."""

    source: Any  # tfds.core.data_sources.BaseDataSource

    def __len__(self) -> int:
        return len(self.source)

    def example(self, index: int, epoch: int) -> Example:
        """Returns {"image": bytes, "label": int}, the same in every epoch."""
        record = self.source[index]
        return {"image": record["image"], "label": record["label"]}

    def name(self, index: int) -> str:
        """Returns the name of the picture's file, where the data set has kept it."""
        file_name = self.source[index].get("file_name")
        return file_name.decode() if file_name else f"example {index}"


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split; see `split_name` for its name in the catalogue."""
    # TFDS is imported where it is used: a run on embedded data needs none of it.
    import tensorflow_datasets as tfds

    builder = open_builder(config)
    source = builder.as_data_source(
        split=split_name(builder, split, config), decoders={"image": tfds.decode.SkipDecoding()}
    )
    return labelled_images.dataset(
        TfdsImages(source), config, train=train, crop_fraction=_crop_fraction(builder)
    )


def info(config: Any) -> DatasetInfo:
    """Returns the facts from the builder's metadata; no example is read."""
    builder = open_builder(config)
    mean, std = labelled_images.statistics(config.channels)
    return DatasetInfo(
        name=config.source,
        examples={
            split: builder.info.splits[split_name(builder, split, config)].num_examples
            for split in ("train", "validation")
        },
        labels=_labels(builder),
        image_shape=(config.image_size, config.image_size, config.channels),
        mean=mean,
        std=std,
        crop_fraction=_crop_fraction(builder),
    )


def open_builder(config: Any) -> Any:
    """Returns the TFDS builder of prepared files, checked to hold what this module reads.

    Raises:
      ValueError: unknown name, files in another format, or no image and label features.
      FileNotFoundError: the data set is not prepared in `config.data_dir`.
    """
    name = config.source.partition(":")[2]
    builder = prepared.open_builder(
        name, config.data_dir, lambda folder: _prepare_command(name, folder), check_known
    )
    check_features(name, builder.info.features)
    return builder


def split_name(builder: Any, split: str, config: Any) -> str:
    """Returns the catalogue's name of "train" or "validation".

    `config.train_split` and `config.eval_split` win, and may be slices such as "train[90%:]".
    When empty: "train", and the first of validation, valid, val, dev, test that exists.

    Raises:
      ValueError: there is no such split.
    """
    existing = list(builder.info.splits)
    field = "train_split" if split == "train" else "eval_split"
    automatic = ("train",) if split == "train" else _VALIDATION_NAMES
    given = getattr(config, field)
    names = [given] if given else automatic
    for name in names:
        if name.partition("[")[0] in existing:
            return name
    raise ValueError(
        f"{config.source} has no split {' or '.join(names)}, only {existing}: "
        f'set data.{field}, for example to "{existing[0]}[90%:]"'
    )


def _prepare_command(name: str, folder: Path) -> str:
    if name in OWN_DATASETS:
        return f"`python -m data.prepare {name} --data_dir={folder}`"
    words = "imagenet --manual_dir=TARS" if name == "imagenet2012" else f"tfds {name}"
    return f"`python -m data.prepare {words} --data_dir={folder}` (extra `prepare`: TensorFlow)"


def check_known(name: str) -> None:
    """Raises ValueError, with the nearest names, if neither TFDS nor this project makes `name`."""
    import tensorflow_datasets as tfds

    known = [*OWN_DATASETS, *tfds.list_builders(with_community_datasets=False)]
    plain = name.partition("/")[0].partition(":")[0]
    if plain not in known:
        close = difflib.get_close_matches(plain, known)
        hint = f"did you mean {' or '.join(close)}?" if close else "see `tfds.list_builders()`"
        raise ValueError(f"data.source: TFDS has no data set {name!r}; {hint}")


def check_features(name: str, features: Any) -> None:
    """Raises ValueError if a data set's features are not a picture and its class."""
    import tensorflow_datasets as tfds

    wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for key, kind in wanted.items():
        if key not in features or not isinstance(features[key], kind):
            raise ValueError(
                f"{name!r} has no {kind.__name__} feature {key!r}, only {dict(features.items())}: "
                "it is not an image-classification data set"
            )


def _labels(builder: Any) -> tuple[str, ...]:
    """Returns the names of the classes; words for ImageNet's, which its files number by synset."""
    names = tuple(builder.info.features["label"].names)
    return imagenet() if names == imagenet_synsets() else names


def _crop_fraction(builder: Any) -> float:
    fixed_size = None not in builder.info.features["image"].shape
    return 1.0 if fixed_size else labelled_images.PHOTOGRAPH_CROP
