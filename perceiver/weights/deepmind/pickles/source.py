"""The file of a pickle: its small pieces are read in order, its data is passed over and located."""

import codecs
import dataclasses
import re
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

SHORT = 1024  # bytes of text that are decoded at once; longer text can only be array data
_BLOCK = 1 << 20
# Looked up here, because Python imports a codec when it is first used, and reading imports nothing.
_DECODERS = {name: codecs.getincrementaldecoder(name) for name in ("utf-8", "raw-unicode-escape")}


class UnsafePickleError(ValueError):
    """A file that is not the weights of a model, and was therefore not read."""


@dataclasses.dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of the file, not read: as they stand, or encoded as text of the characters 0-255."""

    offset: int
    length: int  # in the file
    encoding: str = ""  # "": the bytes themselves

    def blocks(self, file: BinaryIO) -> Iterator[bytes]:
        """Yields the decoded bytes in blocks; raises ValueError where they are not such text."""
        file.seek(self.offset)
        decoder = _DECODERS[self.encoding]() if self.encoding else None
        left = self.length
        while left:
            block = file.read(min(left, _BLOCK))
            if not block:
                raise ValueError("the file ends within an array")
            left -= len(block)
            yield decoder.decode(block, final=not left).encode("latin-1") if decoder else block

    def read_into(self, file: BinaryIO, target: memoryview) -> None:
        """Fills `target` with the decoded bytes."""
        start = 0
        if not self.encoding and self.length == len(target):  # straight from the file
            file.seek(self.offset)
            start = file.readinto(target)
        elif self.encoding:
            for block in self.blocks(file):
                target[start : start + len(block)] = block
                start += len(block)
        if start != len(target):
            raise ValueError("the file ends within an array")


@dataclasses.dataclass(frozen=True, slots=True)
class PickledText:
    """A string: its value if it is short, and its place."""

    value: str | None
    run: ByteRange


class Source:
    """A position in a file of a known size; nothing is ever taken to be longer than what is left.

    It is read through a buffer, not mapped into memory: if another process cuts a mapped file
    short, this process dies.
    """

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size, self.position = file, size, 0

    @property
    def left(self) -> int:
        return self.size - self.position

    def skip(self, length: int) -> int:
        """Passes over bytes, which are not read; returns where they start."""
        start = self.position
        if not 0 <= length <= self.left:
            raise ValueError(f"the file is truncated: {length:,} bytes needed, {self.left:,} left")
        self.position += length
        return start

    def take(self, length: int) -> bytes:
        self.file.seek(self.skip(length))  # costs nothing within the buffer
        data = self.file.read(length)
        if len(data) != length:
            raise ValueError("the file became shorter while it was read")
        return data

    def number(self, code: str) -> Any:
        """Returns one number, of a code of `struct`."""
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def integer(self, length: int) -> int:
        """Returns an integer of so many bytes."""
        if not 0 <= length <= 8:
            raise ValueError(f"an integer of {length:,} bytes; 8 are enough for any size")
        return int.from_bytes(self.take(length), "little", signed=True)

    def line(self, limit: int = SHORT) -> str:
        """Returns the text up to the next line end, which may be `limit` bytes away."""
        self.file.seek(self.position)
        data = self.file.readline(limit + 1)
        if not data.endswith(b"\n"):
            raise ValueError("the file is truncated, or a line of it is too long")
        self.skip(len(data))
        return data[:-1].decode("utf-8")

    def decimal(self, pattern: str = r"-?[0-9]{1,20}") -> str:
        """Returns a line that holds a number."""
        text = self.line(limit=40)
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} is not a number")
        return text

    def data(self, length: int) -> ByteRange:
        """Passes over data."""
        return ByteRange(self.skip(length), length)

    def text(self, length: int) -> PickledText:
        """Reads short UTF-8 text, passes over long text."""
        run = ByteRange(self.skip(length), length, "utf-8")
        return PickledText(self._decode(run), run)

    def text_line(self) -> PickledText:
        """Text of protocol 0: raw bytes and backslash escapes up to the end of the line."""
        self.file.seek(self.position)
        length = 0
        while not (block := self.file.readline(_BLOCK)).endswith(b"\n"):
            if not block:
                raise ValueError("the file is truncated: it ends within a line")
            length += len(block)
        length += len(block)
        run = ByteRange(self.skip(length), length - 1, "raw-unicode-escape")
        return PickledText(self._decode(run), run)

    def _decode(self, run: ByteRange) -> str | None:
        if run.length > SHORT:
            return None
        self.file.seek(run.offset)
        return self.file.read(run.length).decode(run.encoding)
