"""TFRecord files and the protocol buffers in them, read without TensorFlow.

A record is its length (8 bytes), that one's checksum (4), the message, its checksum (4). The
checksum is CRC-32C, turned by 15 bits and moved by a constant (tensorflow.org, "TFRecord and
tf.train.Example"). Of protocol buffers only what `tf.train.SequenceExample` uses is understood.
"""

import functools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

# A feature's values: bytes, float32 or int64, as its list's field says.
Feature = Sequence[bytes] | np.ndarray

_LANE = 1024  # bytes; a power of 2


def read(file: str | Path) -> Iterator[bytes]:
    """Yields the messages of a file.

    Raises:
      ValueError: a record is damaged or cut off.
    """
    with Path(file).open("rb") as stream:
        number = 0
        while head := stream.read(12):
            place = f"record {number}"
            if len(head) < 12 or _masked(head[:8]) != head[8:]:
                raise ValueError(f"{place}: its length field is corrupt or truncated")
            (size,) = struct.unpack("<Q", head[:8])
            message, check = stream.read(size), stream.read(4)
            if len(message) < size or len(check) < 4:
                raise ValueError(f"{place}: truncated after {len(message)} of {size} bytes")
            if _masked(message) != check:
                raise ValueError(f"{place}: corrupt")
            yield message
            number += 1


def sequence_example(message: bytes) -> tuple[dict[str, Feature], dict[str, list[Feature]]]:
    """Returns (context, feature lists) of a `tf.train.SequenceExample`.

    Raises:
      ValueError: it is none.
    """
    context: dict[str, Feature] = {}
    lists: dict[str, list[Feature]] = {}
    for field, content in _fields(memoryview(message)):
        if field == 1:
            context |= {key: _feature(value) for key, value in _map(content)}
        elif field == 2:
            for key, value in _map(content):
                lists[key] = [
                    _feature(feature) for number, feature in _fields(value) if number == 1
                ]
    return context, lists


def crc32c(data: bytes) -> int:
    """Returns the checksum; lanes of the data are taken together, and combined two by two.

    Zeros before the first one bit change nothing while the register is 0, hence the lanes may be
    filled up in front; the register's start of all ones is the same as the first bits turned.
    """
    if len(data) < 4:
        return functools.reduce(_byte, data, 0xFFFFFFFF) ^ 0xFFFFFFFF
    lanes = 1 << (-(-len(data) // _LANE) - 1).bit_length()
    filled = np.zeros(lanes * _LANE, np.uint8)
    filled[-len(data) :] = np.frombuffer(data, np.uint8)
    filled[len(filled) - len(data) :][:4] ^= 0xFF
    register = np.zeros(lanes, np.uint32)
    for column in np.ascontiguousarray(filled.reshape(lanes, _LANE).T):
        register = (register >> 8) ^ _table()[(register ^ column) & 0xFF]
    level = 0
    while len(register) > 1:
        register = _apply(_shift(level), register[0::2]) ^ register[1::2]
        level += 1
    return int(register[0]) ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    check = crc32c(data)
    return struct.pack("<I", ((check >> 15 | check << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@functools.cache
def _table() -> np.ndarray:  # uint32 [256]: the register after one byte
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, (values >> 1) ^ np.uint32(0x82F63B78), values >> 1)
    return values


def _byte(register: int, value: int) -> int:
    return (register >> 8) ^ int(_table()[(register ^ value) & 0xFF])


@functools.cache
def _shift(level: int) -> np.ndarray:
    """Returns uint32 [4, 256]: each byte of a register after `_LANE * 2**level` zeros."""
    if level:
        half = _shift(level - 1)
        return _apply(half, half)
    values = np.arange(256, dtype=np.uint32) << (8 * np.arange(4, dtype=np.uint32)[:, None])
    for _ in range(_LANE):
        values = (values >> 8) ^ _table()[values & 0xFF]
    return values


def _apply(shift: np.ndarray, register: np.ndarray) -> np.ndarray:
    parts = [shift[i][(register >> (8 * i)) & 0xFF] for i in range(4)]
    return parts[0] ^ parts[1] ^ parts[2] ^ parts[3]


def _map(content: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Yields the entries of `map<string, message> = 1`."""
    for number, entry in _fields(content):
        if number == 1:
            pair = dict(_fields(entry))
            yield bytes(pair.get(1, b"")).decode(), pair.get(2, memoryview(b""))


def _feature(content: memoryview) -> Feature:
    for number, values in _fields(content):
        payload = [value for field, value in _fields(values) if field == 1]
        if number == 1:
            return [bytes(value) for value in payload]
        if number == 2:  # one run of floats, or float by float
            return np.frombuffer(b"".join(payload), "<f4")
        if number == 3:
            return np.array([x for value in payload for x in _integers(value)], np.int64)
    return []


def _integers(value: memoryview | int) -> Iterator[int]:
    if isinstance(value, int):
        yield value - (1 << 64 if value >> 63 else 0)
        return
    place = 0
    while place < len(value):
        number, place = _varint(value, place)
        yield from _integers(number)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yields (field number, content) of a message."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == 0:
            content, place = _varint(data, place)
            yield tag >> 3, content
            continue
        if kind == 2:
            size, place = _varint(data, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of wire type {kind}: not a tf.train.SequenceExample")
        if place + size > len(data):
            raise ValueError("a field longer than its message: not a tf.train.SequenceExample")
        yield tag >> 3, data[place : place + size]
        place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number without end: not a tf.train.SequenceExample")
