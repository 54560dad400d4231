"""What each process of a run is doing, as a small file that the others can read.

A host that waits in a collective cannot know for whom: only what the others write tells. The files
lie in `<folder>/hosts/<process>.json`. Where hosts share no folder each sees its own only.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

QUIET = 15.0  # seconds without a sign of life: several beats, and clocks that differ a little
_NAMED = 8  # hosts that a line lists
_ORDER = {"ended": -1, "data": 0, "step": 1}  # within one step, who is behind; others come later


@dataclasses.dataclass(frozen=True)
class Heartbeat:
    """What one process was doing when it last wrote."""

    process: int  # jax.process_index()
    host: str  # name of the machine
    pid: int
    phase: str  # "data", "step", "evaluate", "save", ...; "ended" after the last
    step: int
    since: float  # when it entered the phase: seconds of the machine's clock (time.time)
    time: float  # when it wrote this

    @property
    def name(self) -> str:
        """Which host, for whoever has to look there."""
        return f"host {self.process} ({self.host}, process {self.pid})"

    def describe(self, now: float) -> str:
        """Who, where and for how long."""
        if self.phase == "ended":
            return f"{self.name} has ended at step {self.step}"
        where = f"in {self.phase!r} of step {self.step}"
        if now - self.time > QUIET:
            return f"{self.name} has been silent for {now - self.time:.0f} s, last seen {where}"
        return f"{self.name} has been {where} for {now - self.since:.0f} s"


def write(folder: Any, beat: Heartbeat) -> None:
    """Writes a process's file at once: a reader sees the old one or the new one.

    Args:
      folder: of all heartbeats, a `pathlib.Path` or anything like it; made if missing.
      beat: replaces that of the same process.

    Raises:
      OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{beat.process}.json.tmp"
    temporary.write_text(json.dumps(dataclasses.asdict(beat)) + "\n")
    temporary.replace(folder / f"{beat.process}.json")


def read(folder: Any, processes: int, born: float = 0.0) -> dict[int, Heartbeat]:
    """Reads the files of processes 0 .. `processes` - 1; those that are missing are left out.

    Args:
      folder: of all heartbeats.
      processes: of this run.
      born: when this process began; what is older by more than `QUIET` is of an earlier one.
    """
    beats = {}
    for process in range(processes):
        try:
            beat = Heartbeat(**json.loads((folder / f"{process}.json").read_text()))
        except (OSError, ValueError, TypeError):  # not there, or of another version
            continue
        if beat.time >= born - QUIET:
            beats[process] = beat
    return beats


def unresponsive(beats: Mapping[int, Heartbeat], now: float | None = None) -> list[Heartbeat]:
    """Those who have ended, or from whom nothing has been heard for `QUIET` seconds."""
    now = time.time() if now is None else now
    return [x for x in beats.values() if x.phase == "ended" or now - x.time > QUIET]


def suspects(beats: Mapping[int, Heartbeat], processes: int, now: float | None = None) -> str:
    """Who the others are waiting for, in words.

    Those who are silent or have ended; else those who are behind; else all, if they are all at the
    same place. Who never wrote a file is named by number.

    Args:
      beats: as `read` returns them.
      processes: of this run.
      now: of the machine's clock.
    """
    now = time.time() if now is None else now
    missing = [
        f"host {i} has written no heartbeat to the run's folder"
        for i in range(processes)
        if i not in beats
    ]
    lost = unresponsive(beats, now)
    first = min((_place(x) for x in beats.values()), default=None)
    behind = [x for x in beats.values() if _place(x) == first]
    if lost:
        told = lost
    elif len(behind) == len(beats) == processes > 1:
        return f"all {processes} hosts are at the same point: " + behind[0].describe(now)
    else:
        told = [] if missing and len(behind) == len(beats) else behind
    # A file system that is not shared shows this host alone, and says nothing about the others.
    words = [beat.describe(now) for beat in told] + missing
    more = f"; and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return "; ".join(words[:_NAMED]) + more


def _place(beat: Heartbeat) -> tuple[int, int]:
    return beat.step, _ORDER.get(beat.phase, len(_ORDER))
