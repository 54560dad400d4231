"""Hostile pickles are refused by the name of what they try; nothing of them happens.

`CASES` maps a name to the file's bytes, written by hand, and what the error must say. Many would
create the file SENTINEL in the working directory, if `pickle` opened them.
"""

import re
import struct
import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest

from perceiver.weights.deepmind import pickles

SENTINEL = "sentinel"
TOUCH = f"touch {SENTINEL}"
PYTHON = f"__import__('os').system({TOUCH!r})"


class Case(NamedTuple):
    data: bytes
    says: str  # a regular expression


def text(value: str) -> bytes:
    """SHORT_BINUNICODE"""
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def number(value: int) -> bytes:
    """LONG1"""
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def shape(*sizes: int) -> bytes:
    return b"(" + b"".join(map(number, sizes)) + b"t"


def name(module: str, attribute: str) -> bytes:
    """GLOBAL"""
    return f"c{module}\n{attribute}\n".encode()


def stack_name(module: str, attribute: str) -> bytes:
    """STACK_GLOBAL"""
    return text(module) + text(attribute) + b"\x93"


def memo_name(module: str, attribute: str) -> bytes:
    """STACK_GLOBAL of strings that were put into the memo before, inside a list."""
    return b"(" + text(module) + b"q\x07" + text(attribute) + b"q\x08l0h\x07h\x08\x93"


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def dtype(code: str = "f4", order: str = "<", special: bytes = b"NNN") -> bytes:
    made = call(name("numpy", "dtype"), text(code), b"\x89", b"\x88")
    return made + b"(K\x03" + text(order) + special + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"


def data(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


def array(sizes: bytes, kind: bytes | None = None, content: bytes = data(bytes(8))) -> bytes:
    args = name("numpy", "ndarray"), b"K\x00\x85", b"C\x01b"
    made = call(name("numpy.core.multiarray", "_reconstruct"), *args)
    return made + b"(K\x01" + sizes + (kind or dtype()) + b"\x89" + content + b"tb"


def file(value: bytes, key: bytes = text("a")) -> bytes:
    """A whole file: a dict of one item."""
    return b"\x80\x04}" + key + value + b"s."


def nested_tuples(levels: int) -> bytes:
    """A tuple of a tuple twice of a tuple twice ...: short to write, 2**levels long to walk."""
    return b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(levels))


def twice(i: int) -> bytes:
    """A dict of the value before it, twice."""
    get = b"h" + bytes([i])
    return b"q" + bytes([i]) + b"}(" + text("a") + get + text("b") + get + b"u"


def latin_array(content: bytes) -> bytes:
    """An array of 8,000 bytes, as protocol 2 writes them."""
    encoded = call(name("_codecs", "encode"), content, text("latin1"))
    return array(shape(2000), content=encoded)


SYSTEM = call(name("posix", "system"), text(TOUCH))
LONG_TEXT = b"X" + struct.pack("<I", 8000) + bytes(8000)
GOOD = file(array(shape(2)))

CASES = {
    # calls
    "os.system": Case(file(call(name("os", "system"), text(TOUCH))), "byte 6.*os.system"),
    "posix.system, protocol 0": Case(
        f"cposix\nsystem\n(V{TOUCH}\ntR.".encode(), "byte 0.*posix.system"
    ),
    "posix.system, protocol 4": Case(
        file(call(stack_name("posix", "system"), text(TOUCH))), "posix.system"
    ),
    "names from the memo": Case(
        b"\x80\x04" + text("posix") + b"\x94" + text("system") + b"\x94\x86"
        b"h\x00h\x01\x93" + text(TOUCH) + b"\x85R\x86.",
        "posix.system",
    ),
    "builtins.eval": Case(file(call(name("builtins", "eval"), text(PYTHON))), "builtins.eval"),
    "builtins.exec": Case(file(call(name("builtins", "exec"), text(PYTHON))), "builtins.exec"),
    "__builtin__.eval": Case(  # Python 2's name, which protocol 2 keeps
        b"\x80\x02" + call(name("__builtin__", "eval"), text(PYTHON)) + b".", "__builtin__.eval"
    ),
    "builtins.getattr": Case(file(call(name("builtins", "getattr"))), "builtins.getattr"),
    "subprocess.Popen": Case(
        file(call(name("subprocess", "Popen"), b"(" + text("touch") + text(SENTINEL) + b"l")),
        "subprocess.Popen",
    ),
    "dotted name": Case(
        file(call(stack_name("haiku._src.data_structures", "config.os.system"), text(TOUCH))),
        "haiku._src.data_structures.config.os.system",
    ),
    "numpy's own loader": Case(file(call(name("numpy", "load"), text("x"))), "numpy.load"),
    "an import alone": Case(file(name("antigravity", "geohash")), "antigravity.geohash"),
    "a jax array": Case(
        file(call(name("jax._src.array", "_reconstruct_array"))),
        "jax._src.array._reconstruct_array(.|\n)*np.asarray",
    ),
    "in a nested value": Case(file(b"}" + text("b") + SYSTEM + b"s"), "posix.system"),
    "in a key": Case(file(b"N", key=SYSTEM), "posix.system"),
    "in the state of an array": Case(file(array(SYSTEM + b"\x85")), "posix.system"),
    "in the state of a dtype": Case(
        file(array(shape(2), dtype(special=b"NN" + SYSTEM))), "posix.system"
    ),
    "in the metadata of a dtype": Case(
        file(array(shape(2), dtype(special=SYSTEM + b"NN"))), "posix.system"
    ),
    "in the argument of a mapping": Case(
        file(call(name("haiku._src.data_structures", "FlatMapping"), SYSTEM)), "posix.system"
    ),
    "default of a defaultdict": Case(
        file(call(name("collections", "defaultdict"), name("os", "getcwd"))), "os.getcwd"
    ),
    "calling what may only be named": Case(
        file(call(name("numpy", "ndarray"), shape(1 << 40))), "calls numpy.ndarray"
    ),
    "class of an array": Case(
        file(call(name("numpy._core.multiarray", "_reconstruct"), name("builtins", "dict"))),
        "calls numpy._core.multiarray._reconstruct incorrectly",
    ),
    "state of what has none": Case(file(b"K\x01}b"), "sets the state of 1"),
    "calling a string": Case(file(call(text("os.system"), text(TOUCH))), "calls the string"),
    "INST": Case(f"(V{TOUCH}\niposix\nsystem\n.".encode(), "posix.system"),
    "INST of a known name": Case(b"(icollections\nOrderedDict\n.", "INST.*collections.OrderedDict"),
    "OBJ": Case(file(b"(" + name("collections", "OrderedDict") + b"o"), "instruction OBJ"),
    "NEWOBJ of another class": Case(
        file(name("subprocess", "Popen") + text(TOUCH) + b"\x85\x81"), "subprocess.Popen"
    ),
    "NEWOBJ_EX": Case(file(name("collections", "OrderedDict") + b")}\x92"), "NEWOBJ_EX"),
    "a persistent id": Case(file(b"Pposix.system\n"), "instruction PERSID"),
    "a persistent id from the stack": Case(file(text("x") + b"Q"), "instruction BINPERSID"),
    "EXT1": Case(file(b"\x82\x01"), "instruction EXT1"),
    "EXT4": Case(file(b"\x84\x01\x00\x00\x00"), "instruction EXT4"),
    "NEXT_BUFFER": Case(b"\x80\x05}" + text("a") + b"\x97s.", "instruction NEXT_BUFFER"),
    "a set": Case(file(b"\x8f"), "instruction EMPTY_SET"),
    "Python 2": Case(b"}U\x01aK\x01s.", "SHORT_BINSTRING.*Python 2"),
    # arrays
    "an object array": Case(
        file(array(shape(1), dtype("O8", "|"), b"(" + SYSTEM + b"l")), "dtype 'O8'"
    ),
    "objects in an array of numbers": Case(
        file(array(shape(1), None, b"(K\x01l")), "an object array"
    ),
    "a structured dtype": Case(
        file(
            array(
                shape(1),
                dtype("f4", "|", b"N" + text("x") + b"\x85}" + text("x") + b"K\x00\x85s"),
            )
        ),
        "dtype 'f4' with fields",
    ),
    "void": Case(file(array(shape(1), dtype("V8", "|"))), "dtype 'V8'"),
    "strings": Case(file(array(shape(1), dtype("U2"))), "dtype 'U2'"),
    "complex": Case(file(array(shape(1), dtype("c8"))), "dtype 'c8'"),
    "a byte order that is none": Case(file(array(shape(2), dtype(order=""))), "dtype 'f4' with"),
    "2**60 elements": Case(file(array(shape(1 << 60))), "no array has the shape"),
    "a product that overflows": Case(
        file(array(shape(1 << 32, 1 << 32))), "no array has the shape"
    ),
    "a product that overflows to its size": Case(
        file(array(shape(1 << 31, 1 << 31, 1 << 2), None, data(b""))), "no array has the shape"
    ),
    "empty and huge": Case(file(array(shape(0, 1 << 62), None, data(b""))), "no array has the"),
    "a negative size": Case(file(array(shape(-2))), "no array has the shape"),
    "two negative sizes": Case(file(array(shape(-2, -1))), "no array has the shape"),
    "33 axes": Case(file(array(shape(*[1] * 33))), "no array has the shape"),
    "a size that is a bool": Case(file(array(b"\x88\x85")), "shape is a tuple"),
    "a shape that is a list": Case(file(array(b"(K\x02l")), "shape is a list"),
    "too little data": Case(file(array(shape(3))), r"takes 12 bytes, the file has 8"),
    "too much data": Case(file(array(shape(1))), r"takes 4 bytes, the file has 8"),
    "data that is text": Case(file(array(shape(1), None, text("1234"))), "data is the string"),
    "data in another encoding": Case(
        file(array(shape(1), None, call(name("_codecs", "encode"), text("abcd"), text("utf-16")))),
        "the string 'utf-16'",
    ),
    "an array without a state": Case(
        file(
            call(
                name("numpy.core.multiarray", "_reconstruct"),
                name("numpy", "ndarray"),
                b"K\x00\x85",
                b"C\x01b",
            )
        ),
        "a is an array without its data",
    ),
    # lengths and sizes
    "an integer of a gigabyte": Case(file(b"\x8b" + struct.pack("<i", 1 << 30)), "an integer of"),
    "an integer of a negative length": Case(file(b"\x8b" + struct.pack("<i", -1)), "an integer of"),
    "a decimal of 5,000 digits": Case(file(b"I" + b"9" * 5000 + b"\n"), "too long"),
    "data longer than the file": Case(
        file(b"\x8e" + struct.pack("<Q", 1 << 60)), "truncated: 1,152,921,504,606,846,976 bytes"
    ),
    "data of all the address space": Case(
        file(b"\x96" + struct.pack("<Q", (1 << 64) - 1)), "truncated: 18,446"
    ),
    "text longer than the file": Case(file(b"X\xff\xff\xff\xff"), "truncated: 4,294,967,295"),
    "a frame longer than the file": Case(
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + GOOD[2:], "a frame of 1,099,511,627,776"
    ),
    "a frame that ends too soon": Case(
        b"\x80\x04\x95" + struct.pack("<Q", 3) + GOOD[2:], "crosses the end of its frame"
    ),
    "a frame in a frame": Case(
        b"\x80\x04\x95" + struct.pack("<Q", 20) + b"\x95" + struct.pack("<Q", 5) + GOOD[2:],
        "a frame of 5 bytes",
    ),
    # bombs
    "a memo index of 4 billion": Case(
        file(b"K\x01r\xff\xff\xff\xffj\xfe\xff\xff\xff"), "refers to value 4,294,967,294"
    ),
    "a tuple of 2**200 values as key": Case(file(b"N", key=nested_tuples(200)), "key.* is a tuple"),
    "a tuple of 2**40 values": Case(file(nested_tuples(40)), "more than 20,000 items"),
    "a dict of 2**40 arrays": Case(
        file(b"(" + array(shape(2)) + b"".join(map(twice, range(40))) + b"t"),
        "more than 20,000 items",
    ),
    "a dict that contains itself": Case(
        b"\x80\x04}q\x00" + text("a") + b"h\x00s.", "contains itself"
    ),
    "a list that contains itself": Case(file(b"]q\x00h\x00a"), "contains itself"),
    "lists 100,000 deep": Case(
        file(b"]" * 100_000 + b"a" * 99_999), "more than 100,000 instructions"
    ),
    "lists 1,000 deep": Case(file(b"]" * 1000 + b"a" * 999), "more than 64 levels"),
    "dicts 1,000 deep": Case(
        file((b"}" + text("a")) * 1000 + b"N" + b"s" * 1000), "more than 64 levels"
    ),
    "a million marks": Case(b"(" * 1_000_000 + b".", "more than 100,000 instructions"),
    "a million dicts": Case(b"}\x94" * 1_000_000 + b".", "more than 100,000 instructions"),
    "one text as the data of many arrays": Case(
        file(b"(" + latin_array(LONG_TEXT + b"q\x00") + latin_array(b"h\x00") * 9 + b"t"),
        "used a second time",
    ),
    # structure
    "the same key twice": Case(
        b"\x80\x04}(" + text("w") + b"K\x01" + text("w") + b"K\x02u.", "the key 'w' appears twice"
    ),
    "the same key twice, later": Case(
        b"\x80\x04}" + text("w") + b"K\x01s" + text("w") + b"K\x02s.", "the key 'w' appears twice"
    ),
    "a key that is a number": Case(file(b"N", key=b"K\x07"), "key of a mapping is 7"),
    "a key without a value": Case(b"\x80\x04}(" + text("a") + b"u.", "not a mapping"),
    "a list": Case(b"\x80\x04].", "holds a list instead of a mapping"),
    "a string": Case(b"\x80\x04" + text("params") + b".", "holds the string 'params' instead"),
    "an array": Case(b"\x80\x04" + array(shape(2)) + b".", "holds an array instead"),
    "bytes": Case(file(b"C\x03abc"), "a is bytes"),
    "a dtype": Case(file(dtype()), "a is a dtype"),
    "a name": Case(file(name("numpy", "ndarray")), "a is numpy.ndarray"),
    "something after the end": Case(GOOD + GOOD, f"{len(GOOD)} bytes follow the end"),
    "more than one value": Case(b"\x80\x04}}.", "more than one value"),
    "a value that does not exist": Case(b"\x80\x04\x85.", "takes a value that does not exist"),
    "a mark that does not exist": Case(b"\x80\x04t.", "a mark that does not exist"),
    "a value from below a mark": Case(b"\x80\x04N(\x85.", "takes a value that does not exist"),
    "nothing": Case(b"\x80\x04.", "takes a value that does not exist"),
    "a protocol of the future": Case(b"\x80\x06}.", "protocol 6"),
    "a protocol in the middle": Case(b"\x80\x04\x80\x04}.", "protocol 4 at byte 2"),
    "no instruction": Case(b"\x80\x04\xff.", r"\\xff' is not a pickle opcode"),
    "text that is not UTF-8": Case(file(b"\x8c\x01\xff"), "can't decode byte 0xff"),
    "cut within an instruction": Case(GOOD[:20], "truncated"),
    "cut within the data": Case(GOOD[:-6], "truncated"),
    "cut before the end": Case(GOOD[:-1], "truncated"),
    # other files
    "a torch checkpoint": Case(b"PK\x03\x04" + bytes(40), "zip archive, perhaps a torch"),
    "an old torch checkpoint": Case(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "old torch"),
    "gzip": Case(b"\x1f\x8b\x08" + bytes(20), "a gzip archive"),
    "an HTML page": Case(b"\n<!DOCTYPE html><html>", "an HTML page: the download failed"),
    "an HTML page without a type": Case(b"<html><head>", "an HTML page: the download failed"),
    "a page of a bucket": Case(b"<?xml version='1.0'?><Error>", "an XML page"),
    "a Git LFS pointer": Case(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "a JSON file": Case(b'{"a": 1}', "a JSON file"),
    "safetensors": Case(struct.pack("<Q", 40) + b'{"a":{"dtype"', "a safetensors file"),
    "an .npy file": Case(b"\x93NUMPY\x01\x00", "an .npy file"),
    "an empty file": Case(b"", "an empty file"),
    "noise": Case(bytes(range(1, 200)), "is not a pickle opcode"),
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "weights.pickle"


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_by_name(path, name):
    path.write_bytes(CASES[name].data)
    tracemalloc.start()
    try:
        with pytest.raises(pickles.UnsafePickleError) as error:
            pickles.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(error.value)
    assert re.search(CASES[name].says, str(error.value)), str(error.value)
    assert len(str(error.value)) < 1000
    assert peak < 32 << 20
    assert [x.name for x in path.parent.iterdir()] == [path.name]


def test_the_hand_written_array_is_a_good_one(path):
    path.write_bytes(GOOD)
    np.testing.assert_array_equal(
        pickles.read(path)["a"].read(), np.zeros(2, np.float32), strict=True
    )


def test_a_folder_a_device_and_nothing_are_refused(path):
    with pytest.raises(ValueError, match="is a folder or a device"):
        pickles.read(path.parent)
    with pytest.raises(ValueError, match="is a folder or a device"):
        pickles.read("/dev/zero")
    with pytest.raises(FileNotFoundError, match=r"weights\.pickle"):
        pickles.read(path)


@pytest.mark.parametrize("step", range(3))
def test_every_truncation_is_refused(path, step):
    data = GOOD
    for end in range(step, len(data), 3):
        path.write_bytes(data[:end])
        with pytest.raises(pickles.UnsafePickleError):
            pickles.read(path)
