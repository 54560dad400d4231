"""Metrics between two log lines, kept on the device until somebody must know them."""

from collections.abc import Mapping
from typing import Any

from train import metrics
from train.placement import Placement
from train.step import is_finite


class NonFiniteError(FloatingPointError):
    """A loss or gradient was not finite."""


class Window:
    """Adds up the sums of steps; tells their means.

    Its totals are part of a checkpoint: a run that resumes between two log lines writes the same
    numbers, to the last bit, as one that was never interrupted.
    """

    def __init__(self, placement: Placement, totals: Mapping[str, Any] | None = None):
        self._placement = placement
        self._totals = {name: tuple(pair) for name, pair in (totals or {}).items()}
        self._pending: list[tuple[int, Any]] = []

    def add(self, step: int, sums: Any) -> None:
        """Takes the sums of the step that led to `step`; does not wait for the device."""
        self._pending.append((step, sums))

    def totals(self) -> dict[str, tuple[float, float]]:
        """Returns the totals so far, after waiting for all steps.

        Raises:
          NonFiniteError: names the first step whose loss or gradient is not finite.
        """
        for step, sums in self._pending:
            fetched = self._placement.fetch(sums)
            if not is_finite(fetched):
                values = {
                    name: value / weight for name, (value, weight) in fetched.items() if weight
                }
                raise NonFiniteError(f"step {step}: {values}")
            self._totals = metrics.add(self._totals, fetched) if self._totals else fetched
        self._pending = []
        return self._totals

    def take(self) -> dict[str, float]:
        """Returns the means over the window and starts a new one."""
        means = metrics.means(self.totals())
        self._totals = {}
        return means
