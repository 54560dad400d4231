"""Reads the collectives of a compiled program from XLA's text, with the times that each is done.

An operation inside a loop is written once and done in each pass: its bytes count as often as the
loop runs, and loops within loops multiply.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
# Whose asynchronous form returns (operands, results) where the other returns results alone.
_START_HOLDS_OPERANDS = ("all-gather", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"\b(calls|to_apply|body|branch_computations)=(?:\{([^}]*)\}|%?([\w.\-]+))")
_BRANCH = re.compile(r"\b(?:true|false)_computation=%?([\w.\-]+)")
_ARRAY = re.compile(r"\b([a-z]\d*[a-z0-9]*)\[([\d,]*)\]")
_BITS = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation of one device's program."""

    kind: str  # one of KINDS
    payload: int  # bytes of the whole array: of what is gathered, or of what is reduced
    group: int  # devices that exchange
    times: int  # how often a step does it

    @property
    def wire(self) -> float:
        """Bytes that each device sends in a step, by a ring: the least that any algorithm needs.

        All-reduce: 2 (n - 1) / n of the payload, for it is a reduce-scatter and an all-gather;
        these, and all-to-all, (n - 1) / n (Patarasuk and Yuan, 2009).
        """
        if self.group < 2:
            return 0.0
        if self.kind in ("collective-permute", "collective-broadcast"):
            return float(self.payload * self.times)
        rounds = 2 if self.kind == "all-reduce" else 1
        return rounds * (self.group - 1) / self.group * self.payload * self.times


def collectives(text: str) -> list[Collective]:
    """Returns the collectives that the program does, in no order that means anything.

    Args:
      text: `compiled.as_text()` of a `jax.jit(...).lower(...).compile()`.

    Raises:
      ValueError: it is no such text, or a loop with collectives tells not how often it runs.
    """
    entry, computations = _computations(text)
    return list(_walk(entry, computations, _devices(text), 1))


def _computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """Returns the entry's name, and the lines of each computation."""
    found: dict[str, list[str]] = {}
    entry = current = None
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None:
            current.append(line)
    if entry is None:
        raise ValueError(f"no ENTRY computation in {text[:60]!r}; give compiled.as_text()")
    return entry, found


def _walk(name: str, computations: dict, devices: int, times: int) -> Iterator[Collective]:
    for line in computations[name]:
        found = _INSTRUCTION.match(line)
        if not found:
            continue
        shape, operation, rest = found.groups()
        kind = operation.removesuffix("-start")
        if kind in KINDS:
            yield _collective(kind, operation != kind, shape, rest, devices, times)
            continue
        passes = 1
        branches = [b for b in _BRANCH.findall(rest) if operation == "conditional"]
        for how, several, one in _CALLED.findall(rest):
            if how == "branch_computations":
                branches += [name.strip(" %") for name in several.split(",")]
            elif operation == "while" and how == "body":
                inside = list(_walk(one, computations, devices, times))
                passes = _trips(line, computations) if inside else 1
                yield from (dataclasses.replace(x, times=x.times * passes) for x in inside)
            elif operation in ("call", "fusion", "async-start"):
                yield from _walk(one, computations, devices, times)
        if branches:  # one of them is taken: the costliest, so that nothing is flattered
            ways = [list(_walk(way, computations, devices, times)) for way in branches]
            yield from max(ways, key=lambda way: sum(x.wire for x in way))


def _collective(kind, is_start, shape, rest, devices, times) -> Collective:
    if is_start and kind in _START_HOLDS_OPERANDS:
        shape = _second(shape)
    group = _group(kind, rest, devices)
    payload = sum(_bytes(*array) for array in _ARRAY.findall(shape))
    if kind == "reduce-scatter":  # whose result is a part
        payload *= group
    return Collective(kind, payload, group, times)


def _bytes(dtype: str, dims: str) -> int:
    bits = _BITS.search(dtype)  # f32, bf16, s8, f8e4m3fn: the first number; pred has none
    width = int(bits[0]) if bits else 8
    return math.ceil(width * math.prod(int(n) for n in dims.split(",") if n) / 8)


def _second(shape: str) -> str:
    """Returns the second part of "(operand, result, ...)", each of which may be a tuple."""
    parts, depth, start = [], 0, 1
    for i, letter in enumerate(shape):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == (1 if letter == "," else 0) and letter in ",)":
            parts.append(shape[start:i])
            start = i + 1
    return parts[1]


def _devices(text: str) -> int:
    counts = re.findall(r"\b(?:replica_count|num_partitions)=(\d+)", text.split("\n", 1)[0])
    return math.prod(map(int, counts))


def _group(kind: str, rest: str, devices: int) -> int:
    """Returns how many devices exchange with each other, in any of XLA's notations."""
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]* \{([^}]*)\}", rest)
    if named:  # mesh['a'=4,'b'=2], device_ids=(...) {'a'}
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    if even := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):  # [groups,size]<=[devices]
        return int(even[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):  # {{0,1},{2,3}}
        return len(listed[1].split(","))
    if kind == "collective-permute" or "replica_groups={}" in rest:
        return devices
    raise ValueError(f"cannot read the groups of a {kind}: {rest[:200]!r}")


def _trips(line: str, computations: dict) -> int:
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line):
        return int(known[1])
    condition = re.search(r"\bcondition=%?([\w.\-]+)", line)
    limits = [
        int(n)
        for text in (computations[condition[1]] if condition else ())
        for n in re.findall(r"\bs(?:32|64)\[\] constant\((\d+)\)", text)
    ]
    if len(limits) != 1:
        raise ValueError(
            f"a loop with collectives does not tell how often it runs: {line.strip()[:120]!r}; "
            "write it as a scan"
        )
    return limits[0]
