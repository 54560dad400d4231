"""Files that appear whole or not at all."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO


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


def write(path: pathlib.Path, data: bytes) -> None:
    """Writes a small file."""
    with replacing(path) as file:
        file.write(data)
