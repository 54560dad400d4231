"""Safetensors files against the library that defines them; memory while reading and writing."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from safetensors import numpy as safetensors_numpy

from perceiver.weights import tensors


@pytest.fixture
def arrays(rng):
    return {
        "b/ü": rng.standard_normal((3, 5)).astype(np.float32),
        "half": rng.standard_normal(7).astype(np.float16),
        "wide": rng.standard_normal((2, 1, 3)),
        "count": np.array(11, np.int64),
        "flags": np.array([True, False, True]),
        "turned": np.asfortranarray(rng.standard_normal((3, 2)).astype(np.float32)),
        "empty": np.zeros((0, 3), np.float32),
    }


def test_the_library_reads_what_is_written(arrays, tmp_path):
    tensors.write(tmp_path / "x", arrays, {"format": "pt"})
    again = safetensors_numpy.load_file(tmp_path / "x")
    assert again.keys() == arrays.keys()
    for name, x in arrays.items():
        assert again[name].dtype == x.dtype
        np.testing.assert_array_equal(again[name], x)
    with safetensors.safe_open(tmp_path / "x", framework="np") as file:
        assert file.metadata() == {"format": "pt"}


def test_what_the_library_writes_is_read(arrays, tmp_path):
    ordered = {name: np.asarray(x, order="C") for name, x in arrays.items()}
    safetensors_numpy.save_file(ordered, tmp_path / "x", {"note": "metadata is no array"})
    stored = tensors.read(tmp_path / "x")
    assert stored.keys() == arrays.keys()
    for name, x in arrays.items():
        again = stored[name].read()
        assert (stored[name].shape, stored[name].dtype) == (x.shape, x.dtype)
        assert (again.shape, again.dtype) == (x.shape, x.dtype)
        np.testing.assert_array_equal(again, x)
        again[...] = 0  # it owns its memory


def test_bfloat16_comes_back(tmp_path):
    x = np.asarray([1.5, -2.25, 3e38], jnp.bfloat16)
    tensors.write(tmp_path / "x", {"x": x})
    again = tensors.read(tmp_path / "x")["x"].read()
    assert again.dtype == jnp.bfloat16
    assert again.tobytes() == x.tobytes()


def test_arrays_start_at_multiples_of_their_items(arrays, tmp_path):
    tensors.write(tmp_path / "x", arrays)
    data = (tmp_path / "x").read_bytes()
    size = int.from_bytes(data[:8], "little")
    assert size % 8 == 0
    assert list(tensors.read(tmp_path / "x"))[:2] == ["count", "wide"]


def test_no_more_than_one_array_is_in_memory(tmp_path):
    size = 1 << 20
    whole = np.zeros((5, size), np.float32)
    arrays = {str(i): whole[i] for i in range(5)} | {"turned": whole[:2].T}
    tracemalloc.start()
    tensors.write(tmp_path / "x", arrays)
    written = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    stored = tensors.read(tmp_path / "x")
    for name in arrays:
        stored[name].read()
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for peak in (written, read):
        assert peak < 2 * 4 * size * 1.05  # the largest array, of 2 * size numbers


def test_an_unknown_dtype_is_named(tmp_path):
    header = b'{"x":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[0,2]}}'
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match="x is of dtype F8_E5M2; known are F64, F32"):
        tensors.read(tmp_path / "x")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing is missing"):
        tensors.read(tmp_path / "nothing")
