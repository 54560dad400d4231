"""A run whose folder is in an object store: gs://bucket/run.

Checkpoints are written there by Orbax, array by array. Everything else of a run (its config,
metrics, pictures, the exported model) is small, and made by libraries that know local files only:
it lives in a local folder, which is filled from the store at the start and copied back whenever the
run saves. A killed process loses only what its last checkpoint does not know either.
"""

import os
import pathlib
import shutil
import tempfile

from train.checkpoint import folders

CHECKPOINTS = "checkpoints"


class RemoteFolder:
    """The local folder of a run; a context manager that copies it back a last time.

    Attributes:
      folder: local; the run's own where that is local, and then nothing is ever copied.
      checkpoints: where the checkpoints are.
    """

    def __init__(self, folder: str | os.PathLike, *, write: bool = True):
        """Copies what the store has of the run.

        Args:
          folder: of the run, a path or a URL.
          write: False on every host but the first: nothing is copied back.

        Raises:
          ValueError, ModuleNotFoundError: a URL of a store that cannot be used (`folders.of`).
        """
        where = folders.of(folder)
        self._remote = where if folders.is_remote(where) else None
        self._write = write
        self._copied: dict[str, tuple[int, int]] = {}  # name -> (time of change, size)
        if self._remote is None:
            self.folder = pathlib.Path(folder)
            self.checkpoints = self.folder / CHECKPOINTS
            return
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="run-"))
        self.checkpoints = self._remote / CHECKPOINTS
        if self._remote.is_dir():
            self._pull(self._remote)

    def push(self) -> None:
        """Copies the files that have changed to the store."""
        if self._remote is None or not self._write:
            return
        for path in sorted(self.folder.rglob("*")):
            name, status = path.relative_to(self.folder).as_posix(), path.stat()
            version = (status.st_mtime_ns, status.st_size)
            if path.is_dir() or self._copied.get(name) == version:
                continue
            target = self._remote / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            self._copied[name] = version

    def __enter__(self) -> "RemoteFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.push()
        if self._remote is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _pull(self, folder: folders.Folder) -> None:
        for source in folder.iterdir():
            name = source.relative_to(self._remote).as_posix()
            if source.is_dir():
                if name != CHECKPOINTS:
                    self._pull(source)
                continue
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            status = target.stat()
            self._copied[name] = (status.st_mtime_ns, status.st_size)
