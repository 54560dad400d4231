"""The instructions of a pickle, carried out on plain data: nothing is imported or called.

A pickle is a program for a small stack machine. Most of its instructions push plain values and
collect them in containers; two import an object by name and call it, and that is how opening a
pickle can run anything. Here a name is looked up in a table of the caller's, whose functions return
plain descriptions; what is not in the table ends the reading. Long data is not read either: a `Run`
says where in the file it lies.
"""

import dataclasses
import inspect
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from perceiver.weights.pickle_source import Run, Source, Text

# A released model of 457 arrays takes 16,000. The limit bounds the memory of a hostile file.
MAX_INSTRUCTIONS = 100_000
_ITEMS = ("_mapping", "_storage", "_dict")  # the attribute of a mapping type that holds its items


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """The name of a Python object; never the object."""

    name: str


class Machine:
    """Runs one file's program; see `run`.

    Args:
      source: the file, at its start.
      meanings: for each known global the function that describes a call of it, or None if it may be
        named but not called. Functions take the machine and the call's arguments, and raise
        ValueError for what they do not accept. What they return may have a method
        `build(machine, state)`, which stands for the object's `__setstate__`.
    """

    def __init__(self, source: Source, meanings: Mapping[str, Callable[..., Any] | None]):
        self.source, self.meanings = source, meanings
        self.place = 0  # of the instruction at hand
        self.decoded = 0  # bytes of encoded data that were looked at
        self.frame_end: int | None = None
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Returns what the program builds; raises ValueError, with `place` at the culprit."""
        for _ in range(MAX_INSTRUCTIONS):
            self.place = self.source.position
            if self.frame_end is not None and self.place >= self.frame_end:
                if self.place > self.frame_end:
                    raise ValueError("an instruction crosses the end of its frame")
                self.frame_end = None
            code = self.source.take(1)
            name = _NAMES.get(code)
            if name == "STOP":
                break
            if name is None:
                raise ValueError(f"{code!r} is no instruction of a pickle")
            if name not in _INSTRUCTIONS:
                raise ValueError(f"instruction {name}: {_REFUSED[name]}")
            _INSTRUCTIONS[name](self)
        else:
            raise ValueError(f"more than {MAX_INSTRUCTIONS:,} instructions, too many for weights")
        if self.source.left:
            raise ValueError(f"{self.source.left:,} bytes follow the end of the pickle")
        result = self.pop()
        if self.stack or self.marks:
            raise ValueError("the pickle ends with more than one value")
        return result

    # The stack.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("the pickle takes a value that is not there")
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("the pickle takes values up to a mark that is not there")
        mark = self.marks.pop()
        values, self.stack[mark:] = self.stack[mark:], []
        return values

    # The memo.

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"the pickle refers to value {index:,}, which is not there")
        self.push(self.memo[index])

    def put(self, index: int) -> None:
        value = self.pop()
        self.push(value)
        self.memo[index] = value

    # Containers.

    def extend(self, values: list[Any]) -> None:
        target = self.pop()
        if type(target) is not list:
            raise ValueError("the pickle appends to something that is not a list")
        target.extend(values)
        self.push(target)

    def update(self, pairs: list[Any]) -> None:
        target = self.pop()
        if type(target) is not dict or len(pairs) % 2:
            raise ValueError("the pickle sets items of something that is not a mapping")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Only strings are ever hashed: the hash of nested tuples can take for ever.
            if type(key) is not Text or key.value is None:
                raise ValueError(f"a key of a mapping is {describe(key)}; keys are short strings")
            if key.value in target:
                raise ValueError(f"the key {key.value!r} appears twice in one mapping")
            target[key.value] = value
        self.push(target)

    def push_dict(self, pairs: list[Any]) -> None:
        self.push({})
        self.update(pairs)

    # Names and calls.

    def push_global(self, module: Any, name: Any) -> None:
        if not (type(module) is type(name) is Text and module.value and name.value):
            raise ValueError("the pickle names a Python object by something that is not text")
        self.push(self.known(f"{module.value}.{name.value}"))

    def known(self, name: str) -> Global:
        if name not in self.meanings:
            raise ValueError(f"the pickle asks for the Python object {name[:200]!r}")
        return Global(name)

    def call(self) -> None:
        function, args = self.pop_many(2)
        if type(function) is not Global or type(args) is not tuple:
            raise ValueError(f"the pickle calls {describe(function)} on {describe(args)}")
        meaning = self.meanings[function.name]
        if meaning is None:
            raise ValueError(f"the pickle calls {function.name}")
        try:
            inspect.signature(meaning).bind(self, *args)
        except TypeError as error:
            raise ValueError(f"the pickle calls {function.name} wrongly: {error}") from error
        self.push(meaning(self, *args))

    def build(self) -> None:
        target, state = self.pop_many(2)
        if type(target) is dict:
            self.build_mapping(target, state)
            return
        if not hasattr(target, "build"):
            raise ValueError(f"the pickle sets the state of {describe(target)}")
        target.build(self, state)
        self.push(target)

    def build_mapping(self, target: dict[str, Any], state: Any) -> None:
        """Sets the items of a mapping type that keeps them in an attribute."""
        if type(state) is tuple and len(state) == 2 and state[0] is None:
            state = state[1]  # of a class with slots
        items = [
            value
            for name, value in (state.items() if type(state) is dict else ())
            if name in _ITEMS and type(value) is dict
        ]
        if target or len(items) != 1:
            raise ValueError(f"the pickle sets the state of a mapping to {describe(state)}")
        target.update(items[0])
        self.push(target)


def describe(value: Any) -> str:
    """Says what a value is, in few words, without following its contents."""
    if isinstance(value, Global):
        return value.name
    if isinstance(value, Text):
        return f"the string {value.value[:60]!r}" if value.value is not None else "a long string"
    names = {Run: "bytes", dict: "a mapping", list: "a list", tuple: "a tuple"}
    if value is None or isinstance(value, bool | int | float):
        return f"{value!r}"
    name = type(value).__name__.lower()
    return names.get(type(value), f"a{'n' * (name[0] in 'aeiou')} {name}")


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
