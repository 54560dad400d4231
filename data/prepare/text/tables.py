"""Reads documents from Parquet files, prepared TFDS data sets, and Hugging Face's `datasets`."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.prepare.text import files, pieces
from data.prepare.text.pieces import Fault, Pieces, Reading

_ROWS = 256  # of a table at a time


def read_parquet(path: Path, reading: Reading) -> Pieces:
    """Yields the documents of a Parquet file; one that is packed is unpacked on disk first.

    Raises:
      ImportError: PyArrow is missing.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f"{path} needs PyArrow, which is missing: `pip install pyarrow`, the extra `text`"
        ) from error
    try:
        with tempfile.TemporaryFile() as unpacked:
            source: Any = path
            if path.suffix in (".gz", ".zst"):
                with files.open_file(path) as file:
                    shutil.copyfileobj(file, unpacked)
                source = unpacked
            with parquet.ParquetFile(source) as table:
                names = table.schema_arrow.names
                if reading.field not in names:
                    yield pieces.of_record(dict.fromkeys(names), reading.field, str(path))
                    return
                batches = table.iter_batches(_ROWS, columns=[reading.field])
                records = (row for batch in batches for row in batch.to_pylist())
                yield from _of_records(records, str(path), reading)
    except (OSError, EOFError, pyarrow.ArrowException) as error:
        yield Fault("broken", str(path), f"cannot be read to the end: {error}")


def read_tfds(source: str, reading: Reading) -> Pieces:
    """Yields the documents of `tfds:NAME[@SPLIT]`, which lies prepared on this machine.

    Raises:
      FileNotFoundError: it does not.
      ValueError: it has no such split or field.
    """
    import tensorflow_datasets as tfds

    name, _, split = source.removeprefix("tfds:").partition("@")
    folder = Path(reading.tfds_dir or tfds.core.constants.DATA_DIR).expanduser()
    try:
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError:
        raise FileNotFoundError(
            f"TFDS data set {name!r} is not prepared under {folder}: run `tfds build {name} "
            f"--file_format=array_record --data_dir={folder}`, or point --tfds_dir at it"
        ) from None
    if reading.field not in builder.info.features:
        raise ValueError(
            f"{source} has no field {reading.field!r}, only {sorted(builder.info.features)}: "
            "set --field"
        )
    split = split or "train"
    if split.partition("[")[0] not in builder.info.splits:
        raise ValueError(
            f"{source} has no split {split!r}, only {sorted(builder.info.splits)}: "
            f"write tfds:{name}@SPLIT"
        )
    yield from _of_records(_tfds_records(builder, split), source, reading)


def _tfds_records(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    import tensorflow_datasets as tfds

    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        records = builder.as_data_source(split=split)
        yield from (records[index] for index in range(len(records)))
    else:  # which needs TensorFlow
        yield from tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))


def read_hub(source: str, reading: Reading) -> Pieces:
    """Yields the documents of `hf:NAME[#CONFIG][@SPLIT]` as they come from Hugging Face's hub.

    Raises:
      ImportError: the library `datasets` is missing.
      ValueError: the data set has no such field; the library's own errors are alike.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"{source} needs Hugging Face's library, which is missing: `pip install datasets`, "
            "the extra `datasets`"
        ) from error
    rest, _, split = source.removeprefix("hf:").partition("@")
    name, _, config = rest.partition("#")
    # Streamed, so that nothing is kept but what is written.
    records = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
    columns = records.column_names  # None where they are unknown before reading
    if columns and reading.field not in columns:
        raise ValueError(
            f"{source} has no field {reading.field!r}, only {sorted(columns)}: set --field"
        )
    yield from _of_records(records, source, reading)


def _of_records(records: Any, place: str, reading: Reading) -> Pieces:
    for number, record in zip(itertools.count(), records):
        yield pieces.of_record(record, reading.field, f"{place}:{number}")
