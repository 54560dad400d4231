"""Prepares image-classification sets of the TFDS catalogue, ImageNet among them.

TFDS's own builders download, decode archives and write; this module checks what goes wrong most
often before hours are spent, and sees to files that can be read at random (array_record).
"""

import contextlib
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

from data.images import tfds_images
from data.prepare import writing

# File -> bytes of the official one.
IMAGENET_TARS = {
    "ILSVRC2012_img_train.tar": 147_897_477_120,
    "ILSVRC2012_img_val.tar": 6_744_924_160,
}
_IMAGENET_SITE = "https://image-net.org/download-images (registration is needed)"


def prepare_imagenet(manual_dir: str | Path, data_dir: str | Path) -> tuple[Path, bool]:
    """Prepares `imagenet2012` from the official tars; returns as `prepare`.

    Raises:
      FileNotFoundError: a tar is missing, or both.
      OSError: not enough disk.
      ValueError: TensorFlow is not installed.
    """
    folder = Path(manual_dir).expanduser()
    missing = [name for name in IMAGENET_TARS if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {' and '.join(missing)}: training needs both splits of ILSVRC2012; "
            f"download them from {_IMAGENET_SITE} into that folder, and do not unpack them"
        )
    sizes = {name: (folder / name).stat().st_size for name in IMAGENET_TARS}
    for name, size in sizes.items():
        if size != IMAGENET_TARS[name]:
            print(
                f"note: {name} has {size:,} bytes, but the official file has "
                f"{IMAGENET_TARS[name]:,}: is the download complete?",
                file=sys.stderr,
            )
    # Pictures are stored as they are, once.
    return prepare("imagenet2012", data_dir, manual_dir=folder, disk=sum(sizes.values()))


def prepare(
    name: str, data_dir: str | Path, *, manual_dir: str | Path = "", disk: int = 0
) -> tuple[Path, bool]:
    """Prepares a data set by name; returns its folder, and whether it was there already.

    Args:
      name: as in `tfds:NAME`: "mnist", "oxford_iiit_pet", "imagenet_resized/32x32".
      data_dir: where data sets lie; TFDS's own folder when empty.
      manual_dir: files that TFDS cannot download.
      disk: bytes that it will take, where TFDS does not know.

    Raises:
      OSError: not enough disk; what TFDS raises when a download fails.
      ValueError: TensorFlow is not installed, or no such set, or not of labelled pictures
        or texts.
    """
    import tensorflow_datasets as tfds

    root = writing.default_folder(data_dir)
    tfds_images.check_known(name)
    _check_tensorflow()
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with contextlib.redirect_stdout(sys.stderr):  # TFDS prints its banner
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        if not _has_texts(builder.info.features):
            tfds_images.check_features(name, builder.info.features)
        folder = Path(builder.data_dir)
        if folder.exists():
            _check_format(builder, folder)
            return folder, True
        _check_disk(root, disk or (builder.info.dataset_size or 0) + builder.info.download_size)
        config = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
        builder.download_and_prepare(download_config=config)
    return folder, False


def _has_texts(features: Any) -> bool:
    """Whether examples hold texts: `tfds_text:NAME` is told which, and so checks them itself."""
    import tensorflow_datasets as tfds

    return any(isinstance(feature, tfds.features.Text) for feature in features.values())


def _check_tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            "TFDS needs TensorFlow to prepare data sets, which is not installed: "
            "run `pip install -e '.[prepare]'` (reading and training do not need it)"
        )


def _check_format(builder: Any, folder: Path) -> None:
    if builder.info.file_format.value != "array_record":
        raise ValueError(
            f"{folder} holds files in format {builder.info.file_format.value!r}, which does not "
            "allow random access: choose another --data_dir, or remove that folder"
        )


def _check_disk(root: Path, needed: int) -> None:
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            f"{root} has {free / 1e9:.1f} GB free, but {needed / 1e9:.1f} GB are needed: "
            "free some space, or choose another --data_dir"
        )
