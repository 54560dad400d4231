"""What was started, with what, on what: `starts.jsonl`, one line for each start of a run.

With `config.json` it is all that a repetition needs: the command, the code (git revision, and what
was changed beyond it as `starts/<n>.patch`), the versions of the packages, the devices, and the
settings of the environment that move numbers. A fact that cannot be learnt is null, never an error.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import logging

STARTS = "starts.jsonl"
PATCHES = "starts"
# Stands in for git where the code was copied without its history (a container, an archive).
REVISION = "PERCEIVER_REVISION"
MAX_PATCH_BYTES = 1 << 20
MAX_UNTRACKED = 50  # names of files that git does not know
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_GIT_SECONDS = 20.0
# Whatever the user's settings of git are, `git apply` takes it.
_DIFF = "diff --no-ext-diff --no-textconv --no-color --binary --src-prefix=a/ --dst-prefix=b/ HEAD"
_PACKAGES = {  # name in the record -> distribution
    "jax": "jax",
    "jaxlib": "jaxlib",
    "libtpu": "libtpu",
    "cuda": "jax-cuda13-pjrt",
    "haiku": "dm-haiku",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "grain": "grain",
    "tfds": "tensorflow-datasets",
    "numpy": "numpy",
}
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")  # and all JAX_*


def append(folder: os.PathLike, words: Sequence[str]) -> dict[str, Any]:
    """Adds the line of this start to `<folder>/starts.jsonl`; returns it.

    Call it on the first host, once the devices are known and the folder is the run's.

    Args:
      folder: of the run, local.
      words: of the command line, behind `python -m train`.
    """
    folder = pathlib.Path(folder)
    code = _try(_code) or {"revision": None, "dirty": None, "patch": None, "untracked": None}
    changes = code.pop("changes", b"")
    row = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": list(words),
        "directory": _try(os.getcwd),
        "code": code,
        "versions": {"python": platform.python_version()}
        | {name: _version(package) for name, package in _PACKAGES.items()},
        "hosts": jax.process_count(),
        "host": _try(socket.gethostname),
        "platform": _try(platform.platform),
        "devices": {
            "platform": jax.devices()[0].platform,
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
        },
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name in _VARIABLES or name.startswith("JAX_")
        },
    }
    try:
        if changes:
            _keep_patch(folder, code, changes)
        _append_line(folder / STARTS, json.dumps(row).encode() + b"\n")
    except OSError as error:
        # A run that cannot write here ends at its first save, with an error of its own.
        logging.warning("cannot record this start of the run in %s: %s", folder / STARTS, error)
    return row


def read(folder: os.PathLike) -> list[dict[str, Any]]:
    """Returns the starts of a run, oldest first; a half-written last line is left out.

    Raises:
      FileNotFoundError: no start was ever recorded there.
    """
    path = pathlib.Path(folder) / STARTS
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: give the --workdir of a run")
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):  # cut short by a full disk, or by two machines at once
            logging.warning("%s has an unreadable line: %r", path, line[:80])
    return rows


def _code() -> dict[str, Any]:
    """Revision of the checkout, and what differs from it, as `changes`."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or pathlib.Path(os.fsdecode(top.strip())).resolve() != _ROOT:
        # Not the repository of this code: none at all, or one around an unpacked archive.
        revision = os.environ.get(REVISION) or None
        return {"revision": revision, "dirty": None, "patch": None, "untracked": None}
    revision, changes = _git("rev-parse", "HEAD"), _git(*_DIFF.split())
    others = _git("ls-files", "--others", "--exclude-standard", "-z")
    untracked = None if others is None else [os.fsdecode(x) for x in others.split(b"\0") if x]
    return {
        "revision": revision and revision.decode().strip(),
        "dirty": None if changes is None else bool(changes or untracked),
        "patch": None,
        "untracked": untracked and untracked[:MAX_UNTRACKED],
        "changes": changes,
    }


def _git(*words: str) -> bytes | None:
    """Returns what git says of the checkout, None where it fails."""
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=_ROOT,
            capture_output=True,
            check=False,
            timeout=_GIT_SECONDS,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):  # no git, or a file system that hangs
        return None
    return done.stdout if done.returncode == 0 else None


def _keep_patch(folder: pathlib.Path, code: dict[str, Any], changes: bytes) -> None:
    """Writes the changes as `starts/<n>.patch`, n counted from 1, and its name into `code`."""
    if len(changes) > MAX_PATCH_BYTES:
        code["patch"] = f"left out: {len(changes):,} bytes, more than {MAX_PATCH_BYTES:,}"
        return
    patches = folder / PATCHES
    patches.mkdir(parents=True, exist_ok=True)
    last = sorted(patches.glob("*.patch"), key=_number)[-1:]
    if last and last[0].read_bytes() == changes:  # a restart of the same code
        code["patch"] = f"{PATCHES}/{last[0].name}"
        return
    path = patches / f"{_number(last[0]) + 1 if last else 1}.patch"
    path.write_bytes(changes)
    code["patch"] = f"{PATCHES}/{path.name}"


def _number(path: pathlib.Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else 0


def _append_line(path: pathlib.Path, line: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write to a file opened for appending: lines of two starts never mix.
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(handle).st_size
        cut_short = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, b"\n" * cut_short + line)
    finally:
        os.close(handle)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _try(learn: Callable[[], Any]) -> Any:
    """Returns what `learn()` does, None where it fails: a record must not end a run."""
    try:
        return learn()
    except Exception as error:
        print(f"record: {learn.__name__}: {error}", file=sys.stderr)
        return None
