"""Translating a parameter tree by a table of rules that must use up both sides.

A table is data: each rule pairs a name of the source with a path of ours. Expanded for a model it
becomes a plain dict, one entry for each array of the source, and is an error unless every
parameter of the model is filled exactly once. Then a file is held against it: every name must be
known, every shape must fit. All culprits are listed at once, before any array is read: a weight
that is silently left out or loaded into the wrong matrix is the worst bug there is.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from perceiver.weights.stored import Arrays

Params = dict[str, dict[str, np.ndarray]]


class Transform(NamedTuple):
    """Two functions on arrays, each other's inverse, that move numbers and never change them."""

    read: Callable[[np.ndarray], np.ndarray]  # source -> ours
    write: Callable[[np.ndarray], np.ndarray]  # ours -> source


KEEP = Transform(read=lambda x: x, write=lambda x: x)
TRANSPOSE = Transform(read=np.transpose, write=np.transpose)  # [out, in] <-> [in, out]

# How a number is spelled in a source's name: placeholder -> spelling.
_SPELLINGS: dict[str, Callable[[int], str]] = {
    "{layer}": str,
    "{_layer}": lambda i: f"_{i}" if i else "",  # Haiku: linear, linear_1, linear_2
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """The source's array of this name goes to `target`, transformed.

    A name with "{layer}" or "{_layer}" stands for one array per layer; the number is the index
    along the leading axis of the target, which is stacked. A rule without a target drops an array
    that means nothing to the model, wherever there is one.
    """

    source: str
    target: str | None
    transform: Transform = KEEP

    @property
    def placeholder(self) -> str | None:
        return next((p for p in _SPELLINGS if p in self.source), None)

    def name(self, layer: int | None) -> str:
        """Returns the source's name of a layer."""
        if self.placeholder is None:
            return self.source
        return self.source.replace(self.placeholder, _SPELLINGS[self.placeholder](layer))


class Slot(NamedTuple):
    """Where one array of the source goes."""

    target: str | None  # None: it is dropped
    layer: int | None  # index along the target's leading axis; None: all of the target
    rule: Rule


def flatten(params: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """{module: {name: x}} -> {"module/name": x}"""
    return {
        f"{module}/{name}": x for module, leaves in params.items() for name, x in leaves.items()
    }


def unflatten(flat: Mapping[str, np.ndarray]) -> Params:
    """{"module/name": x} -> {module: {name: x}}"""
    params: Params = {}
    for key, x in flat.items():
        module, _, name = key.rpartition("/")
        params.setdefault(module, {})[name] = x
    return params


def expand(rules: Sequence[Rule], target) -> dict[str, Slot]:
    """Returns {source name: its slot} of a table and a model.

    Args:
      rules: the table.
      target: a parameter tree of arrays or `jax.ShapeDtypeStruct`.

    Raises:
      ValueError: the table takes a source twice, fills a parameter twice or not at all, or fills
        one that the model does not have; all are listed.
    """
    wanted = flatten(target)
    table: dict[str, Slot] = {}
    filled: set[str] = set()
    problems = []
    for rule in rules:
        if rule.target is not None:
            if rule.target not in wanted:
                problems.append(f"{rule.source}: the model has no parameter {rule.target}")
                continue
            if rule.target in filled:
                problems.append(f"{rule.source}: another rule already fills {rule.target}")
            filled.add(rule.target)
        stacked = rule.placeholder is not None
        for layer in range(wanted[rule.target].shape[0]) if stacked else (None,):
            if rule.name(layer) in table:
                problems.append(f"{rule.name(layer)}: two rules read it")
            table[rule.name(layer)] = Slot(rule.target, layer, rule)
    problems += [f"{key}: no rule fills it" for key in sorted(wanted.keys() - filled)]
    if problems:
        raise ValueError("the table does not fit the model:\n  " + "\n  ".join(problems))
    return table


def translate(source: Arrays, target, rules: Sequence[Rule]) -> Params:
    """Returns the parameters `target` asks for, taken from `source`.

    Names, shapes and dtypes are all checked before the first array is read. Then arrays are read
    one at a time, so that little more than the result is in memory. Floating arrays of any
    precision (16, 32, 64 bits) become the model's own, float32.

    Args:
      source: arrays by name.
      target: a parameter tree of arrays or `jax.ShapeDtypeStruct`: what is wanted.
      rules: the table.

    Raises:
      ValueError: lists every array of the source that has no rule, every parameter that nothing
        fills, and every shape or dtype that does not fit.
    """
    problems = mismatches(source, target, rules)
    if problems:
        raise ValueError("the weights do not fit the model:\n  " + "\n  ".join(problems))
    table = expand(rules, target)
    wanted = flatten(target)
    flat: dict[str, np.ndarray] = {}
    for key, slot in table.items():
        if slot.target is None:
            continue
        dtype = wanted[slot.target].dtype
        array = slot.rule.transform.read(source[key].read())
        if slot.layer is None:
            flat[slot.target] = np.ascontiguousarray(array, dtype).reshape(array.shape)
            continue
        if slot.target not in flat:
            flat[slot.target] = np.empty(wanted[slot.target].shape, dtype)
        flat[slot.target][slot.layer] = array
    return unflatten({key: flat[key] for key in wanted})


def mismatches(source: Arrays, target, rules: Sequence[Rule]) -> list[str]:
    """Returns what keeps `translate` from filling the target, one line each; reads no array."""
    table = expand(rules, target)
    wanted = flatten(target)
    problems = _unknown(source.keys() - table.keys(), rules, wanted)
    problems += _missing(table, source)
    for key in sorted(source.keys() & table.keys()):
        slot = table[key]
        if slot.target is not None and (misfit := _misfit(source[key], slot, wanted[slot.target])):
            problems.append(f"source {key}: {misfit}")
    return problems


def translate_back(params, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Returns the source's arrays by name, as views of ours; the inverse of `translate`."""
    flat = {key: np.asarray(x) for key, x in flatten(params).items()}
    return {
        key: slot.rule.transform.write(
            flat[slot.target] if slot.layer is None else flat[slot.target][slot.layer]
        )
        for key, slot in expand(rules, params).items()
        if slot.target is not None
    }


def _unknown(keys: Iterable[str], rules: Sequence[Rule], wanted) -> list[str]:
    """What to say of names that the table has no place for."""
    surplus: dict[Rule, list[int]] = {}
    problems = []
    for key in sorted(keys):
        layers = {rule: number for rule in rules if (number := _number(key, rule)) is not None}
        if layers:
            (rule, layer), *_ = layers.items()
            surplus.setdefault(rule, []).append(layer)
        else:
            problems.append(f"source {key}: no rule matches it")
    for rule, layers in surplus.items():
        count = wanted[rule.target].shape[0]
        problems.append(f"source {rule.source}: layers {sorted(layers)}, the model has {count}")
    return problems


def _number(key: str, rule: Rule) -> int | None:
    """The layer whose name `key` is, if it is one of the rule's."""
    if rule.placeholder is None:
        return None
    start, end = rule.source.split(rule.placeholder)
    middle = key[len(start) : len(key) - len(end)].removeprefix("_")
    if not middle.isascii() or not middle.isdigit():
        return None
    return int(middle) if key == rule.name(int(middle)) else None


def _missing(table: Mapping[str, Slot], source: Arrays) -> list[str]:
    """What to say of parameters that nothing fills; one line for all layers of a stack."""
    rows: dict[str, list[tuple[str, int | None]]] = {}
    for key, slot in table.items():
        if key not in source and slot.target is not None:
            rows.setdefault(slot.target, []).append((key, slot.layer))
    problems = []
    for target, names in sorted(rows.items()):
        layers = "" if names[0][1] is None else f" in layers {[layer for _, layer in names]}"
        problems.append(f"target {target}: nothing fills it{layers}; missing {names[0][0]}")
    return problems


def _misfit(stored, slot: Slot, wanted) -> str:
    """Why an array cannot fill its slot, or ""."""
    for kind in (jnp.floating, jnp.integer):
        if jnp.issubdtype(wanted.dtype, kind) and not jnp.issubdtype(stored.dtype, kind):
            return f"dtype {stored.dtype}, {slot.target} is {wanted.dtype}"
    shape = tuple(wanted.shape if slot.layer is None else wanted.shape[1:])
    try:  # on an array that takes no memory
        readable = slot.rule.transform.read(np.broadcast_to(np.float32(0), stored.shape)).shape
    except (ValueError, IndexError):
        readable = None
    if readable == shape:
        return ""
    here = slot.rule.transform.write(np.broadcast_to(np.float32(0), shape)).shape
    return f"shape {tuple(stored.shape)}, the model needs {here} for {slot.target}"
