"""Loss spikes: a step whose loss stands out from the last ones, told as it happens.

Median and median absolute deviation (MAD) are what most of the losses say: a spike moves neither,
where it would move mean and standard deviation and so hide itself.
"""

import collections
import math
import statistics

MEMORY = 200  # losses
_LEAST = 20  # losses before anything stands out
_SIGMA = 1.4826  # standard deviations of a normal distribution in one MAD
# Losses that hardly move make any step stand out: below this part of the median nothing does.
_FLOOR = 1e-3


class SpikeDetector:
    """Compares each step's loss with those of the last steps.

    It starts anew when a run resumes: what is told, not what is trained, may differ then.

    Args:
      deviations: how many robust standard deviations above the median a spike is; 0: none is told.

    Raises:
      ValueError: `deviations` is negative or not a number.
    """

    def __init__(self, deviations: float):
        if not deviations >= 0:
            raise ValueError(f"guard.spike={deviations} must be at least 0 (0: off), such as 10")
        self._deviations = deviations
        self._losses: collections.deque[float] = collections.deque(maxlen=MEMORY)
        self._high = False  # within a spike

    def check(self, step: int, loss: float) -> str | None:
        """Returns a line if this step is the first of a spike, None otherwise.

        A spike ends when a loss is down to half of the threshold, so that a plateau is told once.
        Its losses count as all others do: one that lasts becomes the new normal.
        """
        if not self._deviations or not math.isfinite(loss):
            return None
        seen = len(self._losses)
        line = None
        if seen >= _LEAST:
            median = statistics.median(self._losses)
            spread = _SIGMA * statistics.median(abs(x - median) for x in self._losses)
            # the least positive number: a median of 0 without any spread
            spread = max(spread, _FLOOR * abs(median), 5e-324)
            height = (loss - median) / spread
            if height > self._deviations and not self._high:
                line = (
                    f"loss {loss:.4g} at step {step} is {height:.3g} deviations above the median "
                    f"{median:.4g} of the last {seen} steps"
                )
            if height > self._deviations:
                self._high = True
            elif height < self._deviations / 2:
                self._high = False
        self._losses.append(loss)
        return line
