"""What the names in a pickle of numpy arrays mean: descriptions of arrays, dtypes and mappings.

`MEANINGS` lists every global that numpy and the mapping types of Haiku write, in all versions and
protocols, with the function that describes a call of it. None of these objects is imported.
"""

import dataclasses
import math
from typing import Any, BinaryIO

import numpy as np

from perceiver.weights.deepmind.pickles.machine import Global, Machine, describe
from perceiver.weights.deepmind.pickles.source import ByteRange, PickledText

_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_MAX_AXES = 32
_MAX_BYTES = 1 << 48  # of an array, an axis of length 0 counted as 1


@dataclasses.dataclass
class Dtype:
    """`numpy.dtype`: a code such as "f4", and once its state is set its byte order."""

    code: str
    order: str = "="

    def build(self, machine: Machine, state: Any) -> None:
        """Accepts what numpy writes for plain numbers: (3, order, then nothing special)."""
        order = (
            state[1].value if type(state) is tuple and _types(state[:2], int, PickledText) else None
        )
        if (
            order not in tuple("<>|=")
            or state[0] != 3
            or state[2:] != (None, None, None, -1, -1, 0)
        ):
            raise ValueError(f"a dtype {self.code!r} with fields, metadata or an unknown state")
        self.order = order

    @property
    def numpy(self) -> np.dtype:
        return np.dtype((self.order if self.order in "<>" else "=") + self.code)


@dataclasses.dataclass
class Array:
    """An array: nothing but its place; an empty one waits for its state."""

    shape: tuple[int, ...] = ()
    dtype: np.dtype | None = None
    run: ByteRange | None = None
    axes: tuple[int, ...] = ()  # the order of axes in the file; empty: as in the shape

    def build(self, machine: Machine, state: Any) -> None:
        """`ndarray.__setstate__((version, shape, dtype, is_fortran, data))`."""
        if self.dtype is not None:
            raise ValueError("an array's state is set twice")
        if type(state) is not tuple or len(state) != 5 or state[0] != 1:
            raise ValueError("an array's state is not numpy's (1, shape, dtype, is_fortran, data)")
        _, shape, dtype, fortran, data = state
        if type(data) is list:
            raise ValueError("an object array, which can hold any Python object")
        if not _types((dtype, fortran), Dtype, bool):
            raise ValueError(f"an array's dtype is {describe(dtype)}, not a dtype")
        self.set(machine, shape, dtype, data)
        self.axes = tuple(range(len(self.shape)))[::-1] if fortran else ()

    def set(self, machine: Machine, shape: Any, dtype: Dtype, data: Any) -> None:
        """Checks shape and size, in whole numbers of any length, before numpy sees them."""
        if type(shape) is not tuple or not _types(shape, *[int] * len(shape)):
            raise ValueError(f"an array's shape is {describe(shape)}, not a tuple of integers")
        extent = math.prod(size or 1 for size in shape[: _MAX_AXES + 1]) * dtype.numpy.itemsize
        if len(shape) > _MAX_AXES or min(shape, default=0) < 0 or extent > _MAX_BYTES:
            sizes = ", ".join(map(str, shape[:4])) + ", ..." * (len(shape) > 4)
            raise ValueError(f"no array has the shape ({sizes})")
        size = math.prod(shape) * dtype.numpy.itemsize
        if type(data) is not ByteRange:
            raise ValueError(f"an array's data is {describe(data)}, not bytes")
        available = data.length
        if data.encoding:
            machine.decoded += data.length
            if machine.decoded > machine.source.size:
                raise ValueError("the data of an array is used a second time")
            available = sum(map(len, data.blocks(machine.source.file)))
        if available != size:
            raise ValueError(
                f"an array of shape {shape} and dtype {dtype.code} takes {size:,} bytes, "
                f"the file has {available:,} for it"
            )
        self.shape, self.dtype, self.run = shape, dtype.numpy, data

    def read(self, file: BinaryIO) -> np.ndarray:
        """Returns the values, which the file must still hold."""
        flat = np.empty(math.prod(self.shape), self.dtype)
        self.run.read_into(file, memoryview(flat.view(np.uint8)))
        if self.dtype == bool and flat.view(np.uint8).max(initial=0) > 1:
            raise ValueError("a bool array holds bytes beyond 0 and 1")
        if not self.dtype.isnative:
            flat = flat.byteswap(inplace=True).view(self.dtype.newbyteorder("="))
        axes = self.axes or range(len(self.shape))
        stored = flat.reshape([self.shape[axis] for axis in axes])
        return stored.transpose(np.argsort(axes))


def _reconstruct(machine: Machine, kind: Any, shape: Any, code: Any) -> Array:
    if kind != Global("numpy.ndarray") or shape != (0,):
        raise ValueError(f"the pickle builds an array of class {describe(kind)}")
    return Array()


def _from_buffer(
    machine: Machine, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
) -> Array:
    """Protocol 5 of numpy 1.26 and later; `axes` transpose what `shape` describes."""
    order = order.value if type(order) is PickledText else None
    if type(dtype) is not Dtype or order not in ("C", "F", "K") or (order == "K") == (axes is None):
        raise ValueError(f"an array of {describe(dtype)} in the unknown order {order!r}")
    array = Array()
    array.set(machine, shape, dtype, data)
    if order == "F":
        array.axes = tuple(range(len(shape)))[::-1]
    if order == "K":
        if type(axes) is not tuple or not _types(axes, *[int] * len(shape)):
            raise ValueError(f"the order of an array's axes is {describe(axes)}")
        if sorted(axes) != list(range(len(shape))):
            raise ValueError(f"the order of an array's axes is {axes}")
        array.shape = tuple(shape[axis] for axis in axes)
        array.axes = tuple(axes.index(axis) for axis in range(len(axes)))
    return array


def _dtype(machine: Machine, code: Any, align: Any, copy: Any) -> Dtype:
    code = code.value if type(code) is PickledText else None
    if code not in _DTYPES:
        raise ValueError(f"dtype {code!r}; known: {', '.join(sorted(_DTYPES))}")
    return Dtype(code)


def _scalar(machine: Machine, dtype: Any, data: Any) -> Array:
    if type(dtype) is not Dtype:
        raise ValueError(f"a scalar's dtype is {describe(dtype)}")
    array = Array()
    array.set(machine, (), dtype, data)
    return array


def _encode(machine: Machine, text: Any, encoding: Any) -> ByteRange:
    """How protocols 0-2 write bytes: as text whose characters are the bytes."""
    if (
        type(text) is not PickledText
        or type(encoding) is not PickledText
        or encoding.value != "latin1"
    ):
        raise ValueError(f"the pickle encodes {describe(text)} as {describe(encoding)}")
    return text.run


def _no_bytes(machine: Machine) -> ByteRange:
    return ByteRange(0, 0)


def _mapping(machine: Machine, items: Any = None) -> dict:
    """Any of the mapping types: what they are made from, as a dict."""
    if items is not None and type(items) is not dict:
        raise ValueError(f"a mapping is made from {describe(items)}, not from a dict")
    return {} if items is None else items


def _default_dict(machine: Machine, factory: Any = None) -> dict:
    if factory not in (None, Global("builtins.dict"), Global("__builtin__.dict")):
        raise ValueError(f"the default of a defaultdict is {describe(factory)}")
    return {}


MEANINGS = {
    "numpy.ndarray": None,  # may be named, as an argument, but is not called
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode,
    "builtins.bytes": _no_bytes,
    "__builtin__.bytes": _no_bytes,
    "builtins.dict": None,
    "__builtin__.dict": None,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _default_dict,
    "haiku._src.data_structures.FlatMapping": _mapping,
    "haiku._src.data_structures.FlatMap": _mapping,
    "haiku._src.data_structures.frozendict": _mapping,
    "frozendict.frozendict": _mapping,
}


def _types(values: tuple, *types: type) -> bool:
    """Whether values have exactly these types: True is no integer here."""
    return len(values) == len(types) and all(
        type(x) is t for x, t in zip(values, types, strict=True)
    )
