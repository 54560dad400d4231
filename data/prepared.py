"""Opens data sets in TFDS's format that were prepared before, without TensorFlow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def open_builder(
    name: str,
    data_dir: str,
    command: Callable[[Path], str],
    check_known: Callable[[str], None] = lambda name: None,
) -> Any:
    """Returns the builder of prepared array_record files.

    Args:
      name: of the data set, a folder below `data_dir`.
      data_dir: "" for TFDS's own default.
      command: folder -> how to prepare the data set there, for messages.
      check_known: called with the name when nothing is there; raises for one that cannot be.

    Raises:
      ValueError: files in another format.
      FileNotFoundError: the data set is not prepared in `data_dir`.
    """
    import tensorflow_datasets as tfds

    folder = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    try:
        # From its files alone: a builder's own code may want TensorFlow.
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError:
        check_known(name)
        raise FileNotFoundError(
            f"data set {name!r} is not prepared under {folder}: run {command(folder)}, or point "
            "data.data_dir at the prepared files"
        ) from None
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{name!r} under {folder} has files in format {builder.info.file_format.value!r}, "
            f"which does not allow random access: run {command(folder)} with another data_dir"
        )
    return builder
