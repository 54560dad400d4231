"""Fingerprints of arrays: two numbers that tell whether a copy has the same bits.

An array is taken as words of 32 bits (smaller elements as one word each, larger ones as several).
The first number is their sum, which any single flipped bit changes; the second weighs each word by
a hash of its place, so that pieces in each other's places show too. Both are modulo 2^32: exact,
and the sum of those of its parts. So each device and each host adds up what it holds, whatever the
cut, and no device waits for another. For accidents, not for forgers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Fingerprints = dict[str, list[int]]  # path -> two numbers

_CHUNK = 1 << 20  # words that NumPy works on at once
_PRIME = 0x9E3779B1  # odd, near 2^32 / golden ratio (Knuth's multiplicative hash)


def begin(state: Mapping[str, jax.Array]) -> dict[str, list]:
    """Starts to take fingerprints; the arrays may be donated as soon as it returns.

    On an accelerator they are computed where the arrays are, before anything is copied. A CPU's
    array is memory of the host: a view of it keeps its content, and the work is left to `end`,
    which a thread in the background may call.
    """
    return {path: [_begin(x, shard) for shard in _own_shards(x)] for path, x in state.items()}


def end(begun: dict[str, list]) -> Fingerprints:
    """Returns what `begin` started, of what this host holds. Consumes it, to free memory early."""
    checksums = {}
    for path in list(begun):
        parts = [part() if callable(part) else part for part in begun.pop(path)]
        checksums[path] = [
            sum(int(n) for n in numbers) % 2**32 for numbers in zip(*parts, strict=True)
        ]
        checksums[path] = checksums[path] or [0, 0]
    return checksums


def add(parts: Sequence[Fingerprints]) -> Fingerprints:
    """Returns the fingerprints of whole arrays, from those of what each host holds."""
    return {
        path: [sum(part[path][n] for part in parts) % 2**32 for n in (0, 1)] for path in parts[0]
    }


def of_numpy(x: np.ndarray) -> list[int]:
    """Returns the fingerprint of a host array, in little more memory than the array's."""
    return _of_part(x, (0,) * x.ndim, x.shape)


def _own_shards(x: jax.Array) -> list[Any]:
    """The parts that this host adds: of each place in the array one copy, over all hosts."""
    return [shard for shard in x.addressable_shards if shard.replica_id == 0]


def _begin(x: jax.Array, shard: Any) -> Any:
    starts = tuple(part.indices(size)[0] for part, size in zip(shard.index, x.shape, strict=True))
    if shard.device.platform == "cpu":
        view, shape = np.asarray(shard.data), x.shape
        return lambda: _of_part(view, starts, shape)
    return _on_device(shard.data, np.array(starts, np.uint32), x.shape)


def _on_device(x: jax.Array, starts: np.ndarray, shape: tuple[int, ...]) -> jax.Array:  # u32 [2]
    return _compiled(x, starts, _strides(x, shape))


def _device_words(x: jax.Array, starts: jax.Array, strides: tuple[int, ...]) -> jax.Array:
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = 8 * min(x.dtype.itemsize, 4)
    words = jax.lax.bitcast_convert_type(x, f"uint{bits}").astype(jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, stride in enumerate(strides):
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        index += starts[axis] if axis < x.ndim else np.uint32(0)
        place += index * np.uint32(stride % 2**32)
    sums = [jnp.sum(part, dtype=jnp.uint32) for part in (words, words * _mix(place))]
    return jnp.stack(sums)


# Of one part: a state has many arrays, but few shapes to compile.
_compiled = jax.jit(_device_words, static_argnums=2)


def _of_part(x: np.ndarray, starts: Sequence[int], shape: Sequence[int]) -> list[int]:
    x = np.asarray(x)
    if not x.size:
        return [0, 0]
    strides = _strides(x, shape)
    if x.dtype == np.bool_:
        x = x.view(np.uint8)
    wide = x.dtype.itemsize > 4
    flat = np.ascontiguousarray(x).reshape(x.shape)
    words = flat[..., None].view(np.uint32) if wide else flat.view(f"u{x.dtype.itemsize}")
    starts = (*starts, 0) if wide else tuple(starts)
    total = weighted = 0
    for piece, offsets in _pieces(words, starts):
        place = np.zeros(piece.shape, np.uint32)
        for axis, (offset, stride) in enumerate(zip(offsets, strides, strict=True)):
            index = (
                np.arange(offset, offset + piece.shape[axis], dtype=np.uint64) * stride
            ) % 2**32
            line = [1] * piece.ndim
            line[axis] = -1
            place += index.astype(np.uint32).reshape(line)
        piece = piece.astype(np.uint32)
        total += int(piece.sum(dtype=np.uint32))
        weighted += int((piece * _mix(place)).sum(dtype=np.uint32))
    return [total % 2**32, weighted % 2**32]


def _pieces(words: np.ndarray, starts: Sequence[int]):
    """Yields (piece, its first place along each axis), cut along the longest axis."""
    if words.size <= _CHUNK:
        yield words, starts
        return
    axis = int(np.argmax(words.shape))
    half = words.shape[axis] // 2
    for begin_, part in zip((0, half), np.split(words, [half], axis), strict=True):
        yield from _pieces(part, [s + begin_ * (a == axis) for a, s in enumerate(starts)])


def _strides(x: Any, shape: Sequence[int]) -> tuple[int, ...]:
    """Words from one element to the next along each axis of the whole array, and within one."""
    words = max(np.dtype(x.dtype).itemsize // 4, 1)
    strides, stride = [], words
    for size in reversed(shape):
        strides.append(stride)
        stride *= size
    return (*reversed(strides), *((1,) if words > 1 else ()))


def _mix(place):
    """A hash of u32 places; the last bit is set, so that every bit of a word counts."""
    place = (place ^ (place >> np.uint32(16))) * np.uint32(_PRIME)
    return (place ^ (place >> np.uint32(15))) | np.uint32(1)
