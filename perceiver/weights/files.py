"""Files that appear whole or not at all, and JSON from files that may hold anything."""

import contextlib
import json
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

_MOST_JSON = 2**28  # bytes


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Yields a file that takes the place of `path` once it is written, and vanishes on an error."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        temporary = pathlib.Path(file.name)
        try:
            yield file
            file.flush()
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def parse_json(data: str | bytes | bytearray) -> dict[str, Any]:
    """Returns a JSON object.

    Raises:
      ValueError: it is broken, nested too deeply, or something else than an object.
    """
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("JSON, but not an object")
    return content


def read_json(path: Any) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Args:
      path: a `pathlib.Path` or anything like it.

    Raises:
      FileNotFoundError: there is no such file, or it is none (a device, a pipe).
      ValueError: what it holds is no JSON object; names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, or no regular file")
    data = bytearray()
    with path.open("rb") as file:
        while block := file.read(2**20):
            data += block
            if len(data) > _MOST_JSON:
                raise ValueError(f"{path}: broken file: more than {_MOST_JSON:,} bytes of JSON")
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path}: broken file: {error}") from error


def beside(folder: pathlib.Path, name: Any, *, links: bool = False) -> pathlib.Path:
    """Returns the path of a file that another file in the folder names.

    Args:
      folder: of both.
      name: as the other file has it.
      links: whether it may be a symbolic link, as in the hub's cache.

    Raises:
      ValueError: it is no plain name of a regular file there.
    """
    if not isinstance(name, str) or pathlib.PurePath(name).name != name:
        raise ValueError(f"{folder}: {name!r} is not the name of a file in it")
    path = folder / name
    if path.exists() and not (path.is_file() and (links or not path.is_symlink())):
        raise ValueError(f"{path} is no regular file of that folder")
    return path


def write(path: pathlib.Path, data: bytes) -> None:
    """Writes a small file."""
    with replacing(path) as file:
        file.write(data)
