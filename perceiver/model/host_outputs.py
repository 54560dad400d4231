"""Outputs larger than the device's memory: decoded some queries at a time, collected on the host.

What reads the latents does not change from one query to the next, so an encoder runs once and one
compiled decoder runs again and again. In Haiku:

    latents = encode(params, inputs)
    decode = jax.jit(decoder.apply)
    y = decode_to_host(lambda queries: decode(params, queries, latents), queries, at_once=65_536)
"""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np

from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.positions import Dense, PerExample, SeparableFourier


def decode_to_host(
    decode: Callable,
    queries: jax.Array | np.ndarray | ByteArray,
    *,
    at_once: int = 2**16,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Decodes queries piece by piece.

    While the host stores one piece, the device computes the next. All pieces of a segment have the
    same shape, so a compiled `decode` is compiled once for each segment: where the last piece would
    be smaller, it starts earlier, and some queries are decoded twice.

    Args:
      decode: pieces of the queries -> [B, o, ...], one output for each of o queries. Compiled, it
        should take parameters and latents as arguments: arrays that a compiled function closes over
        become part of the program.
      queries: [B, O, E], or a byte array; arrays on the host are moved to the device in pieces.
      at_once: queries in a piece, rounded down to whole lines of a grid's first axis.
      out: where to store the outputs, e.g. a `np.memmap`; None makes a new array.

    Returns:
      [B, O, ...], `out` if that was given.

    Raises:
      ValueError: `at_once` is not positive, or `out` has another shape than the outputs.
    """
    if at_once < 1:
        raise ValueError(f"at_once={at_once} must be at least 1 query")
    size = queries.size if isinstance(queries, ByteArray) else queries.shape[1]
    pending = None
    for start, piece in pieces(queries, at_once):
        y = decode(piece)
        if out is None:
            out = np.empty((y.shape[0], size, *y.shape[2:]), y.dtype)
        _check_shape(out, (y.shape[0], size, *y.shape[2:]))
        if pending is not None:
            _store(out, *pending)
        pending = start, y
    _store(out, *pending)
    return out


def pieces(
    queries: jax.Array | np.ndarray | ByteArray, at_once: int
) -> Iterator[tuple[int, jax.Array | np.ndarray | ByteArray]]:
    """Yields (number of the first query, some queries); pieces of a segment are of equal size."""
    if not isinstance(queries, ByteArray):
        for start, stop in _ranges(queries.shape[1], at_once):
            yield start, queries[:, start:stop]
        return
    before = 0
    for segment in queries.segments:
        line = segment.size // segment.dims[0]
        for start, stop in _ranges(segment.dims[0], max(1, at_once // line)):
            yield before + start * line, ByteArray.of(_lines(segment, start, stop))
        before += segment.size


def _ranges(total: int, size: int) -> Iterator[tuple[int, int]]:
    size = min(size, total)
    for start in range(0, total, size):
        start = min(start, total - size)
        yield start, start + size


def _lines(segment: Segment, start: int, stop: int) -> Segment:
    """Returns some lines of a segment's first axis."""
    line = segment.size // segment.dims[0]
    elements = slice(start * line, stop * line)
    positions = segment.positions
    if isinstance(positions, SeparableFourier):
        first, *others = positions.tables
        positions = SeparableFourier((first[start:stop], *others))
    elif isinstance(positions, Dense):
        positions = dataclasses.replace(positions, table=positions.table[elements])
    elif isinstance(positions, PerExample):
        positions = PerExample(positions.features[:, elements])
    return dataclasses.replace(
        segment,
        content=segment.content[:, start:stop],
        positions=positions,
        mask=None if segment.mask is None else segment.mask[:, elements],
        inverse_std=None if segment.inverse_std is None else segment.inverse_std[:, elements],
    )


def _check_shape(out: np.ndarray, shape: tuple[int, ...]) -> None:
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}, but the outputs are {shape}")


def _store(out: np.ndarray, start: int, y: jax.Array) -> None:
    out[:, start : start + y.shape[1]] = np.asarray(y)
