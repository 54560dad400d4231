"""What a segment's media turned out to be, in one word and a reason, for the report.

Missing and broken clips are left out of a data set; the others are written, whatever they lack.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

# From harmless to useless; the worst that applies is a clip's status, the reason tells all.
STATUSES = ("ok", "short", "silent", "no_picture", "broken", "missing")
WRITTEN = STATUSES[:4]

SILENCE = 33  # of 32,768, the loudest sample: -60 dB
SHORT = 0.95  # of the length that the table states


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """A segment, decoded."""

    frames: list[bytes]  # T JPEG files
    audio: np.ndarray  # int16 [S]
    status: str  # one of STATUSES
    reason: str  # empty when ok


def classify(
    frames: list[bytes],
    audio: np.ndarray,
    covered: Sequence[float],
    seconds: float,
    faults: Sequence[str],
) -> Recording:
    """Returns the recording with its status.

    Args:
      frames: T JPEG files.
      audio: int16 [S].
      covered: seconds that picture and sound last, those that are there.
      seconds: how long they should.
      faults: what went wrong on the way.
    """
    if not frames and not len(audio):
        reason = _first(faults) or "neither video nor audio at this place"
        return Recording(frames=[], audio=audio, status="broken", reason=reason)
    problems: dict[str, str] = {}
    if min(covered) < SHORT * seconds:
        problems["short"] = f"{min(covered):.2f} of {seconds:.2f} s"
    if not len(audio):
        problems["silent"] = "no audio"
    elif np.abs(audio.astype(np.int32)).max() < SILENCE:
        problems["silent"] = "silent audio"
    if not frames:
        problems["no_picture"] = "no video"
    reasons = [*problems.values(), *([_first(faults)] if faults else [])]
    status = max(problems, key=STATUSES.index, default="ok")
    return Recording(frames=frames, audio=audio, status=status, reason="; ".join(reasons))


def _first(faults: Sequence[str]) -> str:
    told = list(dict.fromkeys(faults))
    more = f" and {len(told) - 1} more" if len(told) > 1 else ""
    return f"{told[0]}{more}" if told else ""
