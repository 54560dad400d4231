"""Windows of sound: int16 samples in, float32 in [-1, 1] out."""

import numpy as np

_FULL_SCALE = 2**15  # of int16


def cut(sound: np.ndarray, start: int, samples: int) -> np.ndarray:  # [S'] int16 -> [S] float32
    """Returns `samples` of a sound from `start`, which may lie before it; silence outside of it."""
    window = np.zeros(samples, np.float32)
    first, last = max(start, 0), min(start + samples, len(sound))
    if first < last:
        window[first - start : last - start] = sound[first:last]
        window /= _FULL_SCALE
    return window


def jitter(start: int, most: int, rng: np.random.Generator) -> int:
    """Returns a start that is up to `most` samples earlier or later, all equally likely."""
    return start + int(rng.integers(-most, most, endpoint=True))
