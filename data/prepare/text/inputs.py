"""What `--input` may be, and which reader goes with it.

FILE             plain text, or by its name .jsonl, .json, .ndjson, .csv, .tsv, .parquet;
                 each may end in .gz or .zst as well
FOLDER           all files below it, in the order of their names; hidden ones are passed over
tfds:NAME@SPLIT  a prepared TFDS data set; without @SPLIT its "train"
hf:NAME#CONFIG@SPLIT  a data set of Hugging Face's hub; CONFIG and SPLIT may be left out
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data.prepare.text import files as text_files
from data.prepare.text import tables
from data.prepare.text.pieces import Pieces, Reading

_SAME = {".json": ".jsonl", ".ndjson": ".jsonl"}


def find(inputs: Sequence[str]) -> list[str]:
    """Returns the files and data sets that inputs stand for.

    Raises:
      FileNotFoundError: an input is not there, or a folder without a file.
    """
    paths: list[str] = []
    for name in inputs:
        if name.startswith(("tfds:", "hf:")):
            paths.append(name)
            continue
        path = Path(name).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"--input {name}: no such file or folder")
        files = sorted(_files(path)) if path.is_dir() else [path]
        if not files:
            raise FileNotFoundError(f"--input {name}: the folder has no files")
        paths += map(str, files)
    return paths


def read(source: str, reading: Reading) -> Pieces:
    """Yields the documents and faults of a file or data set."""
    if source.startswith("tfds:"):
        return tables.read_tfds(source, reading)
    if source.startswith("hf:"):
        return tables.read_hub(source, reading)
    path = Path(source)
    plain = path.with_suffix("") if path.suffix in (".gz", ".zst") else path
    suffix = _SAME.get(plain.suffix.lower(), plain.suffix.lower())
    if suffix == ".parquet":
        return tables.read_parquet(path, reading)
    return text_files.read(path, suffix, reading)


def size(source: str) -> int:
    """Returns the bytes of a file; 0 of a data set."""
    return 0 if source.startswith(("tfds:", "hf:")) else Path(source).stat().st_size


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():  # a link may lead into a circle
            yield from _files(path)
        elif path.is_file():
            yield path
