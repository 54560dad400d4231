"""Fingerprints of arrays: two numbers that tell whether a copy has the same bits.

An array is taken as words of 32 bits (smaller elements as one word each, larger ones as several).
The first number is their sum, which any single flipped bit changes; the second weighs each word by
a hash of its place, so that pieces in each other's places show too. Both are modulo 2^32: exact,
and the same in any order of summation, on any number of devices and in NumPy. For accidents, not
for forgers.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Fingerprints = dict[str, list[int]]  # path -> two numbers

_CHUNK = 1 << 20  # words that NumPy works on at once
_PRIME = 0x9E3779B1  # odd, near 2^32 / golden ratio (Knuth's multiplicative hash)


def begin(state: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Starts to take fingerprints; the arrays may be donated as soon as it returns.

    On an accelerator they are computed where the arrays are, before anything is copied. A CPU's
    array is memory of the host: a view of it keeps its content, and the work is left to `end`,
    which a thread in the background may call.
    """
    return {
        path: np.asarray(x) if _is_host_memory(x) else _of_array(x) for path, x in state.items()
    }


def end(begun: dict[str, Any]) -> Fingerprints:
    """Returns what `begin` started: the same on all hosts. Consumes it, to free memory early."""
    found = {}
    for path in list(begun):
        x = begun.pop(path)
        found[path] = of_numpy(x) if isinstance(x, np.ndarray) else [int(n) for n in np.asarray(x)]
    return found


def of_numpy(x: np.ndarray) -> list[int]:
    """Returns the fingerprint of a host array, in little more memory than the array's."""
    words = _numpy_words(np.ascontiguousarray(x))
    total = weighted = 0
    for start in range(0, words.size, _CHUNK):
        chunk = words[start : start + _CHUNK].astype(np.uint32)
        place = np.arange(start, start + chunk.size, dtype=np.uint64).astype(np.uint32)
        total += int(chunk.sum(dtype=np.uint32))
        weighted += int((chunk * _mix(place)).sum(dtype=np.uint32))
    return [total % 2**32, weighted % 2**32]


@jax.jit  # of one array: a state has many, but few shapes to compile
def _of_array(x: jax.Array) -> jax.Array:  # [...] -> u32 [2]
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    width = min(x.dtype.itemsize, 4)
    words = jax.lax.bitcast_convert_type(x, f"uint{8 * width}").astype(jnp.uint32)
    place, stride = jnp.zeros(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        step = np.uint32(stride % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * step
        stride *= words.shape[axis]
    total = jnp.sum(words, dtype=jnp.uint32)
    return jnp.stack([total, jnp.sum(words * _mix(place), dtype=jnp.uint32)])


def _is_host_memory(x: jax.Array) -> bool:
    devices = x.sharding.device_set
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"


def _numpy_words(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(-1)
    if x.dtype == np.bool_:
        return flat.view(np.uint8)
    return flat.view(f"u{min(x.dtype.itemsize, 4)}")


def _mix(place):
    """A hash of u32 places; the last bit is set, so that every bit of a word counts."""
    place = (place ^ (place >> np.uint32(16))) * np.uint32(_PRIME)
    return (place ^ (place >> np.uint32(15))) | np.uint32(1)
