"""The instructions of pickles, protocols 0 to 5, and the loop that carries them out."""

import pickletools
from collections.abc import Callable
from typing import Any

from perceiver.weights.deepmind.pickles.machine import Machine
from perceiver.weights.deepmind.pickles.source import Source

# A released model of 457 arrays takes 16,000. The limit bounds the memory of a hostile file.
MAX_INSTRUCTIONS = 100_000


def run(machine: Machine) -> Any:
    """Returns what the program builds; raises ValueError, with `machine.place` at the culprit."""
    for _ in range(MAX_INSTRUCTIONS):
        machine.place = machine.source.position
        if machine.frame_end is not None and machine.place >= machine.frame_end:
            if machine.place > machine.frame_end:
                raise ValueError("an instruction crosses the end of its frame")
            machine.frame_end = None
        code = machine.source.take(1)
        name = _NAMES.get(code)
        if name == "STOP":
            break
        if name is None:
            raise ValueError(f"{code!r} is not a pickle opcode")
        if name not in _INSTRUCTIONS:
            raise ValueError(f"instruction {name}: {_REFUSED[name]}")
        _INSTRUCTIONS[name](machine)
    else:
        raise ValueError(f"more than {MAX_INSTRUCTIONS:,} instructions, too many for weights")
    if machine.source.left:
        raise ValueError(f"{machine.source.left:,} bytes follow the end of the pickle")
    result = machine.pop()
    if machine.stack or machine.marks:
        raise ValueError("the pickle ends with more than one value")
    return result


def _proto(machine: Machine) -> None:
    version = machine.source.number("<B")
    if machine.place or version > 5:
        raise ValueError(f"protocol {version} at byte {machine.place}; known: 0-5, at byte 0")


def _frame(machine: Machine) -> None:
    length = machine.source.number("<Q")
    if machine.frame_end is not None or length > machine.source.left:
        raise ValueError(f"a frame of {length:,} bytes does not fit: the file is truncated")
    machine.frame_end = machine.source.position + length


def _int(source: Source) -> int | bool:
    text = source.decimal()
    return text == "01" if text in ("00", "01") else int(text)


def _long(source: Source) -> int:
    return int(source.decimal(r"-?[0-9]{1,20}L?").rstrip("L"))


def _float(source: Source) -> float:
    return float(source.decimal(r"-?([0-9]+\.?[0-9]*(e[+-]?[0-9]+)?|inf|nan)"))


def _pushing(read: Callable[[Source], Any]) -> Callable[[Machine], None]:
    """Returns the instruction that pushes what `read` takes from the file."""
    return lambda machine: machine.push(read(machine.source))


def _inst(machine: Machine) -> None:
    name = machine.known(f"{machine.source.line()}.{machine.source.line()}").name
    raise ValueError(f"instruction INST: it builds a Python object, {name}")


_NAMES = {op.code.encode("latin-1"): op.name for op in pickletools.opcodes}
_INSTRUCTIONS: dict[str, Callable[[Machine], None]] = {
    "PROTO": _proto,
    "FRAME": _frame,
    # numbers
    "NONE": lambda m: m.push(None),
    "NEWTRUE": lambda m: m.push(True),
    "NEWFALSE": lambda m: m.push(False),
    "INT": _pushing(_int),
    "LONG": _pushing(_long),
    "FLOAT": _pushing(_float),
    "BININT": _pushing(lambda s: s.number("<i")),
    "BININT1": _pushing(lambda s: s.number("<B")),
    "BININT2": _pushing(lambda s: s.number("<H")),
    "LONG1": _pushing(lambda s: s.integer(s.number("<B"))),
    "LONG4": _pushing(lambda s: s.integer(s.number("<i"))),
    "BINFLOAT": _pushing(lambda s: s.number(">d")),
    # text and data
    "UNICODE": _pushing(Source.text_line),
    "SHORT_BINUNICODE": _pushing(lambda s: s.text(s.number("<B"))),
    "BINUNICODE": _pushing(lambda s: s.text(s.number("<I"))),
    "BINUNICODE8": _pushing(lambda s: s.text(s.number("<Q"))),
    "SHORT_BINBYTES": _pushing(lambda s: s.data(s.number("<B"))),
    "BINBYTES": _pushing(lambda s: s.data(s.number("<I"))),
    "BINBYTES8": _pushing(lambda s: s.data(s.number("<Q"))),
    "BYTEARRAY8": _pushing(lambda s: s.data(s.number("<Q"))),
    # containers
    "MARK": lambda m: m.marks.append(len(m.stack)),
    "EMPTY_LIST": lambda m: m.push([]),
    "LIST": lambda m: m.push(m.pop_mark()),
    "APPEND": lambda m: m.extend(m.pop_many(1)),
    "APPENDS": lambda m: m.extend(m.pop_mark()),
    "EMPTY_TUPLE": lambda m: m.push(()),
    "TUPLE": lambda m: m.push(tuple(m.pop_mark())),
    "TUPLE1": lambda m: m.push(tuple(m.pop_many(1))),
    "TUPLE2": lambda m: m.push(tuple(m.pop_many(2))),
    "TUPLE3": lambda m: m.push(tuple(m.pop_many(3))),
    "EMPTY_DICT": lambda m: m.push({}),
    "DICT": lambda m: m.push_dict(m.pop_mark()),
    "SETITEM": lambda m: m.update(m.pop_many(2)),
    "SETITEMS": lambda m: m.update(m.pop_mark()),
    # the memo
    "GET": lambda m: m.get(int(m.source.decimal())),
    "BINGET": lambda m: m.get(m.source.number("<B")),
    "LONG_BINGET": lambda m: m.get(m.source.number("<I")),
    "PUT": lambda m: m.put(int(m.source.decimal())),
    "BINPUT": lambda m: m.put(m.source.number("<B")),
    "LONG_BINPUT": lambda m: m.put(m.source.number("<I")),
    "MEMOIZE": lambda m: m.put(len(m.memo)),
    # names and calls
    "GLOBAL": lambda m: m.push(m.known(f"{m.source.line()}.{m.source.line()}")),
    "INST": _inst,
    "STACK_GLOBAL": lambda m: m.push_global(*m.pop_many(2)),
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.call,
    "BUILD": Machine.build,
}
_REFUSED = {
    **dict.fromkeys(("OBJ", "NEWOBJ_EX"), "it builds a Python object"),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), "it names a Python object by a number"),
    **dict.fromkeys(("PERSID", "BINPERSID"), "it refers to an object outside the file"),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), "its data lies outside the file"),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), "it was written by Python 2"),
    **dict.fromkeys(("EMPTY_SET", "ADDITEMS", "FROZENSET"), "weights hold no sets"),
    **dict.fromkeys(("POP", "POP_MARK", "DUP"), "no program that writes weights uses it"),
}
