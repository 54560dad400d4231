"""`folder:PATH`: pictures in folders, one for each class, whose names are the classes'.

    PATH/train/CLASS/*.jpg and PATH/validation/CLASS/*.jpg     (or val, valid, dev, test)
    PATH/CLASS/*.jpg                                           (or PATH/train/CLASS/*.jpg alone)

Where there is one set of classes only, it is split once and for all: of each class the 10th, 20th,
... file in the order of names is held out for validation. JPEG, PNG, WebP and BMP files are read;
other files, hidden ones and folders inside of classes are left out, and a message counts them.
Labels count the names of the training folders in alphabetical order. The pictures may be of any
size; evaluation crops as it does photographs.
"""

import dataclasses
import unicodedata
from pathlib import Path
from typing import Any

from absl import logging

from data.dataset import BrokenExample, Dataset, DatasetInfo, Example
from data.images import labelled_images

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_VALIDATION_NAMES = ("validation", "val", "valid", "dev", "test")
_HELD_OUT = 10  # one in so many
# What people call the folder of a split, without a number at its end.
_SPLITS = {"train", "training", "testing", *_VALIDATION_NAMES}


@dataclasses.dataclass(frozen=True, eq=False)
class FolderImages:
    """Random access to picture files, which stay encoded."""

    root: str
    files: tuple[str, ...]  # below root, with "/"
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def example(self, index: int, epoch: int) -> Example:
        """Returns {"image": bytes, "label": int}, the same in every epoch.

        Raises:
          BrokenExample: the file cannot be read.
        """
        path = Path(self.root, self.files[index])
        try:
            return {"image": path.read_bytes(), "label": self.labels[index]}
        except OSError as error:
            raise BrokenExample(f"cannot read {path}: {error.strerror}") from error

    def name(self, index: int) -> str:
        """Returns the file's path below the data set's folder."""
        return self.files[index]


@dataclasses.dataclass(frozen=True)
class Folders:
    """What was found: the classes, the pictures of both splits, and what was left out."""

    classes: tuple[str, ...]
    sources: dict[str, FolderImages]  # "train" and "validation"
    ignored: tuple[str, ...]


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split."""
    source = scan(config).sources[split]
    crop = labelled_images.PHOTOGRAPH_CROP
    return labelled_images.dataset(source, config, train=train, crop_fraction=crop)


def info(config: Any) -> DatasetInfo:
    """Returns the facts from the folders; no picture is opened."""
    folders = scan(config)
    if folders.ignored:
        logging.warning(
            "%s: ignored %d files or folders that are not images of a class, such as %s",
            config.source,
            len(folders.ignored),
            ", ".join(folders.ignored[:3]),
        )
    mean, std = labelled_images.statistics(config.channels)
    return DatasetInfo(
        name=config.source,
        examples={split: len(source) for split, source in folders.sources.items()},
        labels=folders.classes,
        image_shape=(config.image_size, config.image_size, config.channels),
        mean=mean,
        std=std,
        crop_fraction=labelled_images.PHOTOGRAPH_CROP,
    )


def scan(config: Any) -> Folders:
    """Returns what lies in the configured folder.

    `data.train_split` and `data.eval_split` name the folders of the splits, where given.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: no class folders, an empty class, a class of validation alone, an empty split.
    """
    root = Path(config.source.partition(":")[2]).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"data.source {config.source!r}: folder {root} does not exist")
    train_folder, validation_folder = _split_folders(root, config)
    ignored: list[str] = []
    train = _class_files(root, train_folder, ignored)
    if validation_folder:
        validation = _class_files(root, validation_folder, ignored)
        _check_known_classes(train, validation, validation_folder)
    else:
        validation = {name: files[_HELD_OUT - 1 :: _HELD_OUT] for name, files in train.items()}
    if empty := [name for name, files in train.items() if not files]:
        raise ValueError(
            f"{train_folder} has classes without images: {', '.join(empty)}; remove these "
            f"folders, or add images to them ({', '.join(SUFFIXES)})"
        )
    if not any(validation.values()):
        where = validation_folder or f"{train_folder}, of which every {_HELD_OUT}th is held out,"
        raise ValueError(
            f"{where} has no validation images: add some to a folder {root / 'validation'}"
        )
    if not validation_folder:
        train = {name: _without(files, validation[name]) for name, files in train.items()}
    classes = tuple(train)
    splits = {"train": train, "validation": validation}
    sources = {split: _source(root, files, classes) for split, files in splits.items()}
    return Folders(classes, sources, tuple(ignored))


def _split_folders(root: Path, config: Any) -> tuple[Path, Path | None]:
    """Returns the folders of the classes of both splits; None: they share the first."""
    train = root / (config.train_split or "train")
    named = (config.eval_split,) if config.eval_split else _VALIDATION_NAMES
    validation = next((root / name for name in named if (root / name).is_dir()), None)
    for field, given, there in (
        ("train_split", config.train_split, train.is_dir()),
        ("eval_split", config.eval_split, validation is not None),
    ):
        if given and not there:
            raise ValueError(f"data.{field} {given!r}: {root} has no such folder; choose another")
    # A class may be called "train" too: its folder holds pictures, not folders.
    if not train.is_dir() or not any(path.is_dir() for path in train.iterdir()):
        return root, None
    return train, validation


def _class_files(root: Path, folder: Path, ignored: list[str]) -> dict[str, list[str]]:
    """Returns class -> files below root, both sorted; adds what is neither to `ignored`."""
    classes: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_dir():
            ignored.append(path.relative_to(root).as_posix())
            continue
        # A Mac stores é as two characters: the same class all the same.
        files = classes.setdefault(unicodedata.normalize("NFC", path.name), [])
        for file in sorted(path.iterdir()):
            name = file.relative_to(root).as_posix()
            hidden = file.name.startswith(".")
            is_picture = file.suffix.lower() in SUFFIXES and not hidden and not file.is_dir()
            (files if is_picture else ignored).append(name)
    _check_layout(folder, classes)
    if not classes:
        raise ValueError(
            f"{folder} has no subfolders: it must contain one folder of images per class "
            f"({', '.join(SUFFIXES)}), or `train` and `validation` folders with these"
        )
    return dict(sorted(classes.items()))


def _check_layout(folder: Path, classes: dict[str, list[str]]) -> None:
    """Raises ValueError where what would be classes are splits, or hold the classes."""
    names = ", ".join(list(classes)[:5])
    if any(classes.values()):
        if all(name.lower().rstrip("0123456789_-") in _SPLITS for name in classes):
            raise ValueError(
                f"{folder}: {names} hold images, not one folder per class, so nothing says which "
                "class an image is of: move the images of each class into a folder of its name, "
                f"such as {folder / next(iter(classes)) / 'CLASS'}"
            )
        return
    shown = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if any(path.is_dir() for inner in shown for path in inner.iterdir()):
        raise ValueError(
            f"{folder}: {names} hold folders, not images: if they are splits, set data.train_split "
            "and data.eval_split to their names; if the classes lie deeper, make data.source "
            "folder:PATH end there"
        )


def _check_known_classes(train: dict, validation: dict, folder: Path) -> None:
    if unknown := [name for name in validation if name not in train]:
        raise ValueError(
            f"{folder} has classes that are missing from the training folder: "
            f"{', '.join(unknown[:5])}; move or remove them"
        )


def _without(files: list[str], held_out: list[str]) -> list[str]:
    gone = set(held_out)
    return [file for file in files if file not in gone]


def _source(root: Path, files: dict[str, list[str]], classes: tuple[str, ...]) -> FolderImages:
    pairs = [(file, label) for label, name in enumerate(classes) for file in files.get(name, ())]
    return FolderImages(
        str(root), tuple(file for file, _ in pairs), tuple(label for _, label in pairs)
    )
