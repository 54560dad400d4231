"""Pickles of weights are read without pickle, and give what pickle gives, bit for bit."""

import collections
import os
import pathlib
import pickle
import pickletools
import struct
import tracemalloc

import numpy as np
import pytest
from haiku._src.data_structures import to_immutable_dict

from perceiver.weights.deepmind import pickles
from perceiver.weights.deepmind.pickles import instructions
from perceiver.weights.stored import StoredArray

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
FILES = {
    "tiny_imagenet_fourier_position_encoding.pystate": "imagenet_fourier.npz",
    "tiny_language_perceiver_io_bytes.pickle": "mlm_bytes.npz",
}
DTYPES = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def draw(dtype, shape, seed=0):
    """Random bytes as an array: NaNs, infinities and subnormal numbers among them."""
    generator = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return generator.random(shape) < 0.5
    data = generator.bytes(int(np.prod(shape)) * dtype.itemsize)
    return np.frombuffer(data, dtype).reshape(shape).copy()


def write(path, tree, protocol=4):
    path.write_bytes(pickle.dumps(tree, protocol=protocol))
    return path


def assert_same(actual, expected):
    if isinstance(expected, collections.abc.Mapping):
        assert type(actual) is dict
        assert list(actual) == list(expected)
        for key, value in expected.items():
            assert_same(actual[key], value)
    elif isinstance(expected, np.ndarray | np.generic):
        assert type(actual) is StoredArray
        array = actual.read()
        assert actual.shape == array.shape == expected.shape
        assert actual.dtype == array.dtype == expected.dtype.newbyteorder("=")
        assert array.tobytes() == expected.astype(array.dtype).tobytes()
        assert array.flags.writeable
    else:
        assert type(actual) is type(expected)
        assert actual == expected


@pytest.mark.parametrize("name", FILES)
def test_the_golden_files_equal_what_pickle_reads(name):
    with (GOLDEN / name).open("rb") as file:
        assert_same(pickles.read(GOLDEN / name), pickle.load(file))


@pytest.mark.parametrize("name", FILES)
def test_the_golden_files_equal_their_recorded_arrays(name):
    tree = pickles.read(GOLDEN / name)
    tree = tree.get("params", tree)
    with np.load(GOLDEN / FILES[name]) as recorded:
        keys = [key for key in recorded if key.startswith("param|")]
        assert len(keys) == sum(map(len, tree.values())) > 70
        for key in keys:
            _, module, leaf = key.split("|")
            np.testing.assert_array_equal(tree[module][leaf].read(), recorded[key], strict=True)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_dtype_order_and_protocol(tmp_path, protocol):
    for dtype in DTYPES:
        array = draw(dtype, (3, 5, 7))
        tree = {
            "c": array,
            "fortran": np.asfortranarray(array),
            "transposed": array.transpose(1, 0, 2),
            "strided": array[:, ::2],
            "matrix": array[0].T,
            "empty": array[:, :0],
            "no axes": array[0, 0, 0, None].reshape(()),
            "scalar": array[1, 2, 3],
            "big": array.astype(array.dtype.newbyteorder(">")),
            "big fortran": np.asfortranarray(array.astype(array.dtype.newbyteorder(">"))),
        }
        assert_same(pickles.read(write(tmp_path / "x", tree, protocol)), tree)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values(tmp_path, protocol):
    tree = {
        "whole": [0, 1, -1, 255, 256, 65_536, -(2**31), 2**31, 2**62, -(2**63)],
        "real": [0.0, -0.0, 1.5, 1e300, 5e-324, float("inf"), -1e-7],
        "other": (None, True, False, "", "word", "Grüße, 数\n\\u0041", ()),
    }
    assert pickles.read(write(tmp_path / "x", tree, protocol)) == {
        key: tuple(value) for key, value in tree.items()
    }


@pytest.mark.parametrize("protocol", range(6))
def test_mapping_types(tmp_path, protocol):
    inner = {"w": np.arange(6, dtype=np.float32), "b": {}}
    ordered = collections.OrderedDict(b=inner, a=1)
    default = collections.defaultdict(dict, a=inner)
    no_default = collections.defaultdict(None, a=3)
    for tree in (to_immutable_dict({"a": inner}), ordered, default, no_default):
        plain = {"top": tree, "again": tree}
        assert_same(pickles.read(write(tmp_path / "x", plain, protocol)), plain)


@pytest.mark.parametrize(
    "name",
    [
        "haiku._src.data_structures FlatMapping",
        "haiku._src.data_structures FlatMap",
        "haiku._src.data_structures frozendict",
        "frozendict frozendict",
    ],
)
@pytest.mark.parametrize(
    "ending",
    [
        b"(X\x01\x00\x00\x00aK\x05dtR.",  # REDUCE of a tuple that holds a dict
        b"}X\x01\x00\x00\x00aK\x05s\x85\x81.",  # NEWOBJ
        b")\x81}X\x08\x00\x00\x00_mapping}X\x01\x00\x00\x00aK\x05ssb.",  # NEWOBJ, then its state
        b")\x81N}X\x08\x00\x00\x00_mapping}X\x01\x00\x00\x00aK\x05ss\x86b.",  # and with slots
    ],
    ids=["reduce", "newobj", "state", "slots"],
)
def test_mapping_types_of_older_versions(tmp_path, name, ending):
    if ending.startswith(b"("):
        ending = b"(" + ending  # the mark of the dict inside the mark of the tuple
    path = tmp_path / "x"
    path.write_bytes(b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n" + ending)
    assert pickles.read(path) == {"a": 5}


def test_names_of_older_numpy_are_the_same_arrays(tmp_path):
    array = draw("f4", (5, 7))
    for protocol in (2, 5):
        data = pickle.dumps({"a": array, "b": np.float32(3)}, protocol=protocol)
        if protocol == 2:
            data = data.replace(b"numpy._core", b"numpy.core")
        else:  # the names have their length in front, and the frame has one too
            data = data.replace(b"numpy._core.numeric", b"numpy.core.numeric")
            data = data.replace(b"\x8c\x13numpy", b"\x8c\x12numpy")
            data = data.replace(b"\x8c\x16numpy._core", b"\x8c\x15numpy.core")
            data = data[:3] + struct.pack("<Q", len(data) - 11) + data[11:]
        assert b"numpy.core" in data
        assert b"numpy._core" not in data
        path = tmp_path / "x"
        path.write_bytes(data)
        assert_same(pickles.read(path), {"a": array, "b": np.float32(3)})


def test_every_instruction_of_pickle_is_either_known_or_refused():
    known, refused = set(instructions._INSTRUCTIONS), set(instructions._REFUSED)
    assert known | refused | {"STOP"} == {op.name for op in pickletools.opcodes}
    assert not known & refused


@pytest.mark.parametrize("protocol", [2, 3, 5])
def test_opening_reads_no_data_and_reading_takes_one_array(tmp_path, protocol):
    size = 3 << 20
    arrays = {str(i): draw("f4", (size // 4,), seed=i) for i in range(5)}
    path = write(tmp_path / "x", {"params": arrays}, protocol)
    tracemalloc.start()
    try:
        params = pickles.read(path)["params"]
        opened = tracemalloc.get_traced_memory()[1]
        for stored in params.values():
            stored.read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Protocol 2 has no bytes; its text is decoded in blocks of a megabyte.
    assert opened < (5 << 20 if protocol == 2 else 1 << 18)
    assert size < peak < 1.1 * size + (5 << 20 if protocol == 2 else 0)


def test_a_file_that_changed_since_is_not_read(tmp_path):
    path = write(tmp_path / "x", {"a": np.arange(100.0)})
    stored = pickles.read(path)["a"]
    write(path, {"b": np.arange(101.0)})
    with pytest.raises(ValueError, match="has changed since it was opened"):
        stored.read()
    write(path, {"a": np.arange(100.0)})
    os.utime(path, (1, 1))
    with pytest.raises(ValueError, match="has changed since it was opened"):
        stored.read()


def test_a_bool_of_another_byte_is_refused(tmp_path):
    data = pickle.dumps({"a": np.array([True, False, True])}, protocol=4)
    path = tmp_path / "x"
    path.write_bytes(data.replace(b"\x01\x00\x01", b"\x01\x07\x01"))
    stored = pickles.read(path)["a"]
    with pytest.raises(pickles.UnsafePickleError, match=r"x, a: a bool array holds bytes beyond"):
        stored.read()
