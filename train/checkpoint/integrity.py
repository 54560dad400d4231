"""Checksums of a folder's files: shows that it is what was written, byte for byte.

CRC-32 is for accidents, not for forgers: 200 MB take 0.03-0.2 s, a third of what SHA-256 takes.
"""

import json
import os
import pathlib
import zlib
from collections.abc import Sequence

from perceiver.weights import files
from train.checkpoint import folders

CHECKSUMS = "checksums.json"
_CHUNK_BYTES = 1 << 22


def seal(folder: folders.Folder, leave_out: Sequence[str] = ()) -> None:
    """Writes size and checksum of all files in `folder`, but those to leave out, into one more.

    Local files are first made durable and dropped from the kernel's cache (where it obeys), so
    that the checksum is of what the disk gives back. That it is what the program meant to write is
    for the caller to show, by reading the folder after this.
    """
    paths = {name: path for name, path in folders.files(folder) if name not in leave_out}
    for path in paths.values():
        _settle(path)
    checksums = {name: _fingerprint(path) for name, path in paths.items()}
    target = folder / CHECKSUMS
    target.write_text(json.dumps(checksums, indent=1))
    _settle(target)
    if json.loads(target.read_bytes()) != checksums:
        raise OSError(f"{target} does not read back as it was written; check the disk")


def find_damage(folder: folders.Folder) -> str | None:
    """Why a sealed folder is not what was written; None where nothing is wrong with it."""
    try:
        checksums = files.read_json(folder / CHECKSUMS)
    except (FileNotFoundError, NotADirectoryError):
        return f"{CHECKSUMS} is missing: incomplete, or not written by this program"
    except OSError as error:
        return f"{CHECKSUMS} cannot be read: {error}"
    except ValueError as error:
        return str(error)
    for name, wanted in checksums.items():
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            return f"{CHECKSUMS} names a file elsewhere: {name!r}"
        special = not folders.is_remote(folder) and (folder / name).exists()
        if special and not (folder / name).is_file():  # a device may never end
            return f"{name} cannot be read: it is no regular file"
        try:
            actual = _fingerprint(folder / name)
        except (FileNotFoundError, NotADirectoryError):
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error}"
        if actual != wanted:
            return f"{name} has {actual}; expected {wanted}"
    return None


def _fingerprint(path: folders.Folder) -> str:
    checksum = size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
            size += len(chunk)
    return f"{size} bytes, crc32 {checksum:08x}"


def _settle(path: folders.Folder) -> None:
    """Waits until a local file is on its disk, and asks the kernel to forget its copy."""
    if not isinstance(path, pathlib.Path):
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
