"""Damaged pickles are read or refused; whatever their bytes are, nothing else happens."""

import collections
import pathlib
import pickle
import sys

import hypothesis
import numpy as np
import pytest
from haiku._src.data_structures import to_immutable_dict
from hypothesis import strategies as st

from perceiver.weights.deepmind import pickles
from perceiver.weights.stored import StoredArray

GOLDEN = pathlib.Path(__file__).parents[2] / "golden/tiny_language_perceiver_io_bytes.pickle"
TREE = {
    "params": to_immutable_dict({"a/~/b": {"w": np.arange(6, dtype="f4").reshape(2, 3)}}),
    "state": collections.OrderedDict(mean=np.asfortranarray(np.ones((3, 2), ">f8")), n=np.int32(7)),
    "other": [None, True, 1.5, "x", (1 << 40, -3)],
}
STREAMS = [pickle.dumps(TREE, protocol=protocol) for protocol in range(6)]
# What a mutation may put in: names and calls that would do harm, lengths that lie.
PIECES = [
    b"cposix\nsystem\n(Vtouch sentinel\ntR",
    b"\x8c\x05posix\x8c\x06system\x93\x8c\x0etouch sentinel\x85R",
    b"c__builtin__\neval\n(Vopen('sentinel', 'w')\ntR",
    b"(Vtouch sentinel\niposix\nsystem\n",
    b"\x8b\xff\xff\xff\x7f",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"X\xff\xff\xff\xff",
    b"\x95\xff\xff\xff\xff\x00\x00\x00\x00",
    b"r\xff\xff\xff\xff",
    *(bytes([code]) for code in b"(t)}]dluseabR0129h\x81\x85\x86\x87\x93\x94."),
]


def mutate(data, draw):
    """One to four changes: bits flipped, bytes lost, doubled, moved, or pieces put in."""
    data = bytearray(data)
    for _ in range(draw.integers(1, 5)):
        start = int(draw.integers(len(data) + 1))
        end = min(len(data), start + int(draw.integers(1, 1 << draw.integers(1, 8))))
        kind = draw.integers(6)
        if kind == 0 and start < len(data):
            data[start] ^= 1 << int(draw.integers(8))
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:start] = PIECES[draw.integers(len(PIECES))]
        elif kind == 3:
            data[start:start] = data[end : end + 50]
        elif kind == 4:
            data[start:end] = draw.bytes(end - start)
        else:
            data[start:end] = PIECES[draw.integers(len(PIECES))]
    return bytes(data)


class Watch:
    """What the interpreter does while it is on: imports, opened files, programs, compiled code.

    An audit hook cannot be removed, so there is one for all tests.
    """

    HARMLESS = ("builtins.id", "object.__", "sys._getframe", "gc.")

    def __init__(self):
        self.events = None
        sys.addaudithook(self.note)

    def note(self, event, args):
        if self.events is not None and not event.startswith(self.HARMLESS):
            self.events.append((event, args))

    def __call__(self, function):
        self.events = events = []
        try:
            return function(), events
        finally:
            self.events = None


@pytest.fixture(scope="module")
def watch():
    return Watch()


def read_all(path):
    """Reads a file and all its arrays; returns what there was, or the refusal."""
    try:
        tree = pickles.read(path)
        values = [tree]
        while values:
            value = values.pop()
            if type(value) in (dict, tuple):
                values.extend(value.values() if type(value) is dict else value)
            elif type(value) is StoredArray:
                array = value.read()
                assert (array.shape, array.dtype) == (value.shape, value.dtype)
            else:
                assert type(value) in (bool, int, float, str, type(None))
    except pickles.UnsafePickleError as error:
        return error
    return tree


def check(path, data, watch):
    path.write_bytes(data)
    result, events = watch(lambda: read_all(path))
    assert type(result) in (dict, pickles.UnsafePickleError)
    for event, args in events:
        assert event == "open", (event, args)
        assert args[0] == str(path)
    return type(result) is dict


@pytest.mark.parametrize("seed", range(6))
def test_mutated_streams(tmp_path, monkeypatch, watch, seed):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(seed)
    path = tmp_path / "weights"
    assert check(path, STREAMS[seed], watch)
    read = 0
    for _ in range(1500):
        read += check(path, mutate(STREAMS[seed], draw), watch)
    assert 0 < read < 750  # some changes only concern numbers
    assert [x.name for x in tmp_path.iterdir()] == [path.name]


def test_a_mutated_checkpoint(tmp_path, monkeypatch, watch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    data = GOLDEN.read_bytes()
    path = tmp_path / "weights"
    for _ in range(700):
        check(path, mutate(data, draw), watch)
    # In front, where the instructions are dense and most of what follows is data.
    for _ in range(700):
        check(path, mutate(data[:1500], draw) + data[1500:], watch)
    assert [x.name for x in tmp_path.iterdir()] == [path.name]


@hypothesis.given(st.binary(max_size=300))
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("start", [b"", b"\x80\x04", b"\x80\x04}\x8c\x01a"])
def test_any_bytes(tmp_path, watch, start, data):
    check(tmp_path / "weights", start + data, watch)
