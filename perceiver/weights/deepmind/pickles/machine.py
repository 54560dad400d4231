"""The stack machine whose programs pickles are, on plain data: nothing is imported or called.

Most of a pickle's instructions push plain values and collect them in containers; two import an
object by name and call it, and that is how opening a pickle can run anything. Here a name is looked
up in a table of the caller's, whose functions return plain descriptions; what is not in the table
ends the reading. Long data is not read either: a `ByteRange` says where in the file it lies.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from perceiver.weights.deepmind.pickles.source import ByteRange, PickledText, Source

_ITEMS = ("_mapping", "_storage", "_dict")  # the attribute of a mapping type that holds its items


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """The name of a Python object; never the object."""

    name: str


class Machine:
    """One file's stack and memo, and what instructions do with them; see `pickles.instructions`.

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

    # The stack.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("the pickle takes a value that does not exist")
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("the pickle takes values up to a mark that does not exist")
        mark = self.marks.pop()
        values, self.stack[mark:] = self.stack[mark:], []
        return values

    # The memo.

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"the pickle refers to value {index:,}, which does not exist")
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
            if type(key) is not PickledText or key.value is None:
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
        if not (type(module) is type(name) is PickledText and module.value and name.value):
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
            raise ValueError(f"the pickle calls {function.name} incorrectly: {error}") from error
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
    if isinstance(value, PickledText):
        return f"the string {value.value[:60]!r}" if value.value is not None else "a long string"
    names = {ByteRange: "bytes", dict: "a mapping", list: "a list", tuple: "a tuple"}
    if value is None or isinstance(value, bool | int | float):
        return f"{value!r}"
    name = type(value).__name__.lower()
    return names.get(type(value), f"a{'n' * (name[0] in 'aeiou')} {name}")
