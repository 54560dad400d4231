"""One thing or several."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def several(given: Any) -> bool:
    """Returns whether a user gave a list (or a batch of pictures) rather than one thing."""
    if isinstance(given, np.ndarray):
        return given.ndim == 4
    return isinstance(given, Sequence) and not isinstance(given, str | bytes)


def listed(given: Any) -> Sequence[Any]:
    """Returns one thing as a list of one."""
    return given if several(given) else [given]
