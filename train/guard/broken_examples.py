"""Which examples could not be read, told to who watches a run: each once, and all at the end."""

from collections.abc import Callable, Mapping
from typing import Protocol

NAMES = 20  # of the summary; the rest is counted


class HasBroken(Protocol):
    """`data.Batches`, or anything with its `broken`."""

    broken: Mapping[int, str]  # index -> "name: reason"


class BrokenExamples:
    """Collects the broken examples of all splits.

    Args:
        log: Prints a line.
    """

    def __init__(self, log: Callable[[str], None]):
        self._log = log
        self._reasons: dict[tuple[str, int], str] = {}  # (split, index) -> "name: reason"

    def log_new(self, split: str, batches: HasBroken) -> None:
        """Logs the new ones of a split."""
        for index, reason in batches.broken.items():
            if (split, index) not in self._reasons:
                self._reasons[split, index] = reason
                self._log(f"broken {split} example, skipped: {reason}")

    def names(self) -> list[str]:
        """Names of all of them, in the order they were met."""
        return [reason.partition(": ")[0] for reason in self._reasons.values()]

    def summarise(self) -> None:
        """Logs how many there were and their names; nothing if all examples could be read."""
        names = self.names()
        if not names:
            return
        many = "1 broken example was" if len(names) == 1 else f"{len(names)} broken examples were"
        rest = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        self._log(f"{many} skipped: {', '.join(names[:NAMES])}{rest}")
