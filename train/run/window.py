"""Metrics between two log lines, kept on the device until somebody must know them."""

from collections.abc import Callable, Mapping
from typing import Any

from train.devices.placement import Placement
from train.guard import finite
from train.objective import metrics
from train.step import is_finite

Pair = tuple[float, float]  # sum, weight


class NonFiniteError(FloatingPointError):
    """A loss, gradient or parameter was not finite."""


class MetricWindow:
    """Adds up the sums of steps; tells their means.

    Its totals are part of a checkpoint: a run that resumes between two log lines writes the same
    numbers, to the last bit, as one that was never interrupted, and counts the same skipped steps.

    Args:
      placement: brings sums to the host.
      totals: of the window that a resumed run was in.
      max_skips: skipped steps that a window may have (`make_train_step(skip_non_finite=True)`).
      check_loss: gets step and loss of each step that counts; logs the line it returns, if any.
      log: prints a line.
    """

    def __init__(
        self,
        placement: Placement,
        totals: Mapping[str, Any] | None = None,
        *,
        max_skips: int = 0,
        check_loss: Callable[[int, float], str | None] = lambda step, loss: None,
        log: Callable[[str], None] = lambda text: None,
    ):
        if max_skips < 0:
            raise ValueError(f"guard.max_skips={max_skips} must be at least 0")
        self._placement, self._max_skips = placement, max_skips
        self._check_loss, self._log = check_loss, log
        self._totals: dict[str, Pair] = {name: tuple(x) for name, x in (totals or {}).items()}
        self._pending: list[tuple[int, Any]] = []

    def add(self, step: int, sums: Any) -> None:
        """Takes the sums of the step that led to `step`; does not wait for the device."""
        self._pending.append((step, sums))

    def totals(self) -> dict[str, Pair]:
        """Returns the totals so far, after waiting for all steps.

        Raises:
          NonFiniteError: names the first step whose loss or gradient is not finite, or that was
            skipped although as many as are allowed were before.
        """
        while self._pending:
            step, sums = self._pending[0]
            self._take_in(step, self._placement.fetch(sums))
            self._pending.pop(0)
        return self._totals

    def flush(self) -> dict[str, float]:
        """Returns the means over the window and starts a new one; "skipped" is a share of steps."""
        means = metrics.means(self.totals())
        self._totals = {}
        return means

    def _take_in(self, step: int, fetched: dict[str, Pair]) -> None:
        cause, _ = fetched.pop(finite.CAUSE, (0, 0))
        if not is_finite(fetched):
            values = {name: value / weight for name, (value, weight) in fetched.items() if weight}
            raise NonFiniteError(f"step {step}: {values}")
        totals = _added(self._totals, fetched)
        if fetched.get(finite.SKIPPED, (0, 0))[0]:
            count, what = int(totals[finite.SKIPPED][0]), finite.causes(cause)
            if count > self._max_skips:
                raise NonFiniteError(
                    f"step {step} ({what} not finite); it would be skipped step {count} "
                    f"since the last log line, and guard.max_skips={self._max_skips}"
                )
            self._log(
                f"skipped step {step}: {what} not finite; parameters are unchanged; "
                f"{count} of at most {self._max_skips} skips before the next log line"
            )
        elif fetched["loss"][1]:
            line = self._check_loss(step, fetched["loss"][0] / fetched["loss"][1])
            if line:
                self._log(line)
        self._totals = totals


def _added(totals: dict[str, Pair], sums: dict[str, Pair]) -> dict[str, Pair]:
    """Adds a step to the totals; `guard.non_finite` may have changed in the middle of a window."""
    if not totals:
        return sums
    none = {finite.SKIPPED: (0.0, 0.0)}
    if finite.SKIPPED in totals.keys() ^ sums.keys():
        totals, sums = none | totals, none | sums
    return metrics.add(totals, sums)
