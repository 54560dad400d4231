"""One checkpoint on its way to disk: all hosts together, in the background, whole or not at all.

    main thread   the hosts start to write their parts, each what it holds
    background    1. all have written; the first host merges and seals (checksums)
                  2. all read arrays back from the disk and compare; each its share
                  3. the first host renames the folder, and only then removes older checkpoints

Between these every host says whether it failed, and hears all others
(`train.checkpoint.consensus`). So all of them learn of a failure of any, none waits for what will
not come, and the folder is removed only when nobody writes into it any more.

In object storage nothing can be renamed in one go. There the folder has its name from the start,
and counts from the moment that its checksums are there, which come last.
"""

import contextlib
import itertools
import json
import os
import pathlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import logging

from train.checkpoint import array_files, fingerprint, folders, integrity
from train.checkpoint.consensus import Consensus

UNFINISHED = ".orbax-checkpoint-tmp"  # within the name of a folder that never counts
STATE = "state"
RUN = "run/metadata"

_LATE_WRITES = 10.0  # seconds that a write may go on after another of the same save has failed

_ATTEMPTS = itertools.count(1)  # saves are started by all hosts together, so these agree
_CONSENSUS = Consensus("saves")


_REMEDIES = {  # words of a cause, in lower case -> what to do
    ("no space left", "quota", "resource_exhausted"): (
        "Make room: delete old runs, or lower train.keep"
    ),
    ("permission denied", "read-only", "operation not permitted"): "Make the folder writable",
    ("file too large",): "Raise the file size limit (ulimit -f)",
}


class SaveError(OSError):
    """A checkpoint could not be saved; those before it stay, and a later save may succeed."""


class Save:
    """A save that has been started; `join` waits for its end.

    Attributes:
      step: of the checkpoint.
    """

    def __init__(
        self,
        folder: folders.Folder,
        step: int,
        state: Mapping[str, jax.Array],
        run: dict[str, Any],
        *,
        committed: Callable[[], None],
    ):
        """Copies the state off the devices, and goes on in the background.

        Args:
          folder: of all checkpoints.
          step: the name of this one.
          state: arrays by path; they may be donated when this returns.
          run: JSON that is kept with them.
          committed: called on the first host when the checkpoint counts: removes older ones.
        """
        self.step = step
        self._final = folder / str(step)
        unfinished = folder / f"{step}.{next(_ATTEMPTS)}{UNFINISHED}"
        self._folder = self._final if folders.is_remote(folder) else unfinished
        self._run, self._committed = run, committed
        self._sizes = {path: x.nbytes for path, x in state.items()}
        self._fingerprints, self._futures = {}, ()
        self._failures: list[str] = []
        error = None
        try:
            (self._folder / STATE).mkdir(parents=True, exist_ok=True)
            (self._folder / RUN).parent.mkdir(exist_ok=True)
            self._fingerprints = fingerprint.begin(state)
            self._futures = array_files.write(self._folder / STATE, state)
        except Exception as raised:  # the other hosts must hear of it, whatever it is
            error = raised
        self._thread = threading.Thread(target=self._finish, args=(error,), name=f"save {step}")
        self._thread.start()

    def join(self, known: Sequence[int]) -> None:
        """Waits for the end.

        Args:
          known: steps that have a checkpoint, oldest first.

        Raises:
          SaveError: it failed on this host or another; all hosts raise it.
        """
        self._thread.join()
        if self._failures:
            good = (
                f"The checkpoint of step {known[-1]} is still good"
                if known
                else "There is none yet"
            )
            causes = "; ".join(dict.fromkeys(self._failures))
            raise SaveError(
                f"the checkpoint of step {self.step} could not be saved in {self._final.parent}: "
                f"{causes}. {good}. {_remedy(causes)}; the next save tries again"
            )

    def _finish(self, error: Exception | None) -> None:
        try:
            first = jax.process_index() == 0
            if (
                self._all(lambda: self._written(error))
                and self._all(self._add_up)
                and self._all(self._merge, if_=first)
                and self._all(self._compare)
                and self._all(self._commit, if_=first)
            ):
                if first:
                    self._committed()
                return
            if first:
                _remove_for_good(self._folder)
        except Exception as raised:  # the thread must never end without a word
            logging.exception("saving step %d failed", self.step)
            self._failures = [_words(raised)]

    def _all(self, work: Callable[[], None], *, if_: bool = True) -> bool:
        """Does this host's part, and tells whether all hosts have done theirs."""
        said = None
        try:
            if if_:
                work()
        except Exception as raised:
            said = _words(raised)
        heard = _CONSENSUS.gather(said)
        several = len(heard) > 1
        self._failures = [
            f"{words} (host {host})" if several else words
            for host, words in enumerate(heard)
            if words is not None
        ]
        return not self._failures

    def _written(self, error: Exception | None) -> None:
        for future in self._futures:
            try:
                future.result()
            except Exception as raised:  # wait for the others too: nobody may write after this
                error = error or raised
        self._futures = ()
        if error is not None:
            raise error
        self._fingerprints = fingerprint.end(self._fingerprints)

    def _add_up(self) -> None:
        self._fingerprints = whole(self._fingerprints)

    def _merge(self) -> None:
        array_files.merge(self._folder / STATE)
        (self._folder / RUN).write_text(json.dumps(self._run | {"arrays": self._fingerprints}))
        if not folders.is_remote(self._folder):
            integrity.seal(self._folder)

    def _compare(self) -> None:
        mine = sorted(self._sizes)[jax.process_index() :: jax.process_count()]
        sizes = {path: self._sizes[path] for path in mine}
        changed = array_files.find_change(self._folder / STATE, self._fingerprints, sizes)
        if changed is not None:
            raise OSError(f"{changed} does not read back as it was written; check disk and memory")

    def _commit(self) -> None:
        if folders.is_remote(self._folder):
            integrity.seal(self._folder)
            return
        self._folder.rename(self._final)
        _sync(self._final.parent)


def whole(parts: fingerprint.Fingerprints) -> fingerprint.Fingerprints:
    """Returns fingerprints of whole arrays; called on all hosts, with what each holds."""
    return fingerprint.add([json.loads(heard) for heard in _CONSENSUS.gather(json.dumps(parts))])


def remove(folder: folders.Folder) -> None:
    """Removes a checkpoint so that a half-removed one never counts."""
    if folders.is_remote(folder):
        (folder / integrity.CHECKSUMS).unlink(missing_ok=True)
    else:
        folder = folder.rename(folder.with_name(f"{folder.name}{UNFINISHED}"))
    folders.remove(folder)


def sweep(folder: folders.Folder) -> None:
    """Removes what killed saves have left in the folder of all checkpoints."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        unfinished = UNFINISHED in path.name
        if folders.is_remote(folder) and path.name.isdecimal():
            unfinished = not (path / integrity.CHECKSUMS).is_file()
        if unfinished and path.is_dir():
            _try_to_remove(path)


def _remove_for_good(folder: folders.Folder) -> None:
    """Removes the folder of a failed save, into which a write under way may still put a file."""
    deadline, gone = time.monotonic() + _LATE_WRITES, 0
    while gone < 2 and time.monotonic() < deadline:
        if folder.exists():
            gone = 0
            with contextlib.suppress(OSError):  # a file has come while the others went
                folders.remove(folder)
        else:
            gone += 1
        time.sleep(0.2)
    if gone < 2:
        _try_to_remove(folder)


def _try_to_remove(folder: folders.Folder) -> None:
    try:
        folders.remove(folder)
    except OSError as error:  # such as a folder that is read-only: what is left is swept later
        logging.warning("cannot remove the unfinished %s: %s", folder, error)


def _sync(folder: pathlib.Path) -> None:
    """Makes a rename in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _remedy(causes: str) -> str:
    for words, remedy in _REMEDIES.items():
        if any(word in causes.lower() for word in words):
            return remedy
    return "Look for the cause on that host"
