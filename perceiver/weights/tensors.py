"""Safetensors files, array by array.

A file is a JSON header of names, dtypes, shapes and offsets, then the arrays. The library
`safetensors` checks the header; arrays are read and written here one at a time, because it maps a
file as a whole (pages that were read stay in memory) and copies all arrays before it writes.
"""

import json
import math
import os
import pathlib
import struct
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from perceiver.weights.files import replacing
from perceiver.weights.stored import Arrays, StoredArray

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_MOST_HEADER = 2**25  # bytes: of some 300,000 arrays
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def read(path: str | os.PathLike) -> Arrays:
    """Returns the arrays of a file, none of them read yet.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is truncated, or no safetensors file, or holds a dtype that is not known.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > _MOST_HEADER:
        raise ValueError(f"{path}: broken file: a header of {size:,} bytes")
    try:
        with safe_open(path, framework="np"):
            pass  # has checked the header against the file's size
    except SafetensorError as error:
        raise ValueError(f"{path}: broken file: {error}") from error
    with path.open("rb") as file:
        file.seek(8)
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return {name: _stored(path, name, entry, 8 + size) for name, entry in header.items()}


def _stored(path: pathlib.Path, name: str, entry: Mapping, start: int) -> StoredArray:
    shape, code, offset = tuple(entry["shape"]), entry["dtype"], entry["data_offsets"][0] + start
    if code not in _DTYPES:
        raise ValueError(f"{path}: {name} is of dtype {code}; known are {', '.join(_DTYPES)}")
    dtype = _DTYPES[code]
    count = math.prod(shape)

    def read() -> np.ndarray:
        return np.fromfile(path, dtype, count, offset=offset).reshape(shape)

    return StoredArray(shape, dtype, read)


def write(
    path: str | os.PathLike,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a file whole or not at all; one array at a time is brought into order and copied."""
    # Wide dtypes first, so that each array starts at a multiple of its items' size.
    order = sorted(arrays, key=lambda name: (-np.dtype(arrays[name].dtype).itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        x = arrays[name]
        start, end = end, end + math.prod(x.shape) * np.dtype(x.dtype).itemsize
        code = _CODES[np.dtype(x.dtype)]
        header[name] = {"dtype": code, "shape": list(x.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(pathlib.Path(path)) as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in order:
            file.write(np.asarray(arrays[name]).reshape(-1).view(np.uint8).data)
