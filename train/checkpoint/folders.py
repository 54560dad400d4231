"""Folders on local disk or in object storage: `runs/x`, `gs://bucket/runs/x`.

A local path is a `pathlib.Path`; a URL is an `epath.Path`, which has the same methods for `gs://`
(package gcsfs) and `s3://` (package s3fs); where TensorFlow is installed, epath reaches them by it
instead. None of these is needed for local folders. What both kinds of path do not share is here.
"""

import contextlib
import importlib.util
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from etils import epath

Folder = Any  # pathlib.Path or epath.Path

_PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}


def of(path: str | os.PathLike) -> Folder:
    """Returns a path; a local one is absolute.

    Raises:
      ValueError: a URL of a storage that is not known.
      ModuleNotFoundError: a URL of one whose package is not installed; names it.
    """
    text = os.fspath(path)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return pathlib.Path(text).absolute()
    if scheme not in _PACKAGES:
        known = ", ".join(f"{name}://" for name in _PACKAGES)
        raise ValueError(
            f"{text}: unknown storage {scheme}://; use a local folder, or one of {known}"
        )
    packages = (_PACKAGES[scheme], "tensorflow")  # either reaches both storages
    if not any(_is_installed(package) for package in packages):
        raise ModuleNotFoundError(
            f"{text} needs the package {packages[0]}: pip install {packages[0]}", name=packages[0]
        )
    return epath.Path(text)


def is_remote(folder: Folder) -> bool:
    """Whether it lies in object storage, where renaming copies and is not atomic."""
    return not isinstance(folder, pathlib.Path)


def files(folder: Folder) -> Iterator[tuple[str, Folder]]:
    """Yields (path within the folder, path) of all files in it, in order of the former."""
    if is_remote(folder):
        entries = list(_walk(folder))
    else:
        entries = [pathlib.Path(top, name) for top, _, names in os.walk(folder) for name in names]
    yield from sorted((path.relative_to(folder).as_posix(), path) for path in entries)


def remove(folder: Folder) -> None:
    """Removes a folder with all that is in it; it may be gone already."""
    if is_remote(folder):
        folder.rmtree(missing_ok=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _walk(folder: Folder) -> Iterator[Folder]:
    """Yields all files; `rglob` refuses to, because of what many requests may cost."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # hidden, as a test does
        return False
