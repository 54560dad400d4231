"""Translating a parameter tree by a table of rules that must use up both sides.

A key is a parameter's module path and name joined by "/". Every source key must match exactly one
rule; every target must be filled, with the right shape. Anything else is an error that lists all
culprits: a weight that is silently left out or loaded into the wrong matrix is the worst bug there
is.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Params = dict[str, dict[str, np.ndarray]]


def keep(x: np.ndarray) -> np.ndarray:
    """Returns the array as it is."""
    return x


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""Source keys that match `pattern` as a whole go to `target`, transformed.

    `target` may refer to groups of the pattern (`\1`, `\g<leaf>`). A group named "layer" is the
    index along the leading axis of a stacked target; the source has one array per layer, and a
    group that matched nothing is layer 0.
    """

    pattern: str
    target: str
    transform: Callable[[np.ndarray], np.ndarray] = keep


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


def translate(source: Mapping[str, np.ndarray], target, rules: Sequence[Rule]) -> Params:
    """Returns the parameters `target` asks for, taken from `source`.

    Args:
      source: arrays by key. target: a parameter tree of arrays or `jax.ShapeDtypeStruct`, which
      gives the keys and shapes wanted. rules: the table.

    Raises:
      ValueError: a source key with no rule or several, two sources for one target, targets that
      nothing fills, wrong
        shapes or gaps in a stack of layers.
    """
    placed: dict[str, dict[int | None, np.ndarray]] = {}
    problems = []
    for key, x in source.items():
        matches = [(rule, m) for rule in rules if (m := re.fullmatch(rule.pattern, key))]
        if len(matches) != 1:
            problems.append(f"source {key}: {len(matches)} rules match, exactly one must")
            continue
        rule, match = matches[0]
        layer = int(match["layer"] or 0) if "layer" in match.groupdict() else None
        slots = placed.setdefault(match.expand(rule.target), {})
        if layer in slots:
            problems.append(
                f"source {key}: another source already fills {match.expand(rule.target)}"
            )
        slots[layer] = rule.transform(np.asarray(x))
    wanted = {key: tuple(x.shape) for key, x in flatten(target).items()}
    problems += [f"target {key}: nothing fills it" for key in sorted(wanted.keys() - placed.keys())]
    problems += [
        f"target {key}: the model has no such parameter"
        for key in sorted(placed.keys() - wanted.keys())
    ]
    filled = {}
    for key in sorted(wanted.keys() & placed.keys()):
        try:
            filled[key] = _assemble(placed[key])
        except ValueError as error:
            problems.append(f"target {key}: {error}")
            continue
        if filled[key].dtype not in (np.float32, np.int32):
            problems.append(f"target {key}: {filled[key].dtype}, the model's arrays are float32")
        if filled[key].shape != wanted[key]:
            problems.append(
                f"target {key}: shape {filled[key].shape}, the model needs {wanted[key]}"
            )
    if problems:
        raise ValueError("the weights do not fit the model:\n  " + "\n  ".join(problems))
    return unflatten(filled)


def _assemble(slots: dict[int | None, np.ndarray]) -> np.ndarray:
    if None in slots and len(slots) > 1:
        raise ValueError("filled as a whole and layer by layer")
    if None in slots:
        return slots[None]
    if sorted(slots) != list(range(len(slots))):
        raise ValueError(f"layers {sorted(slots)} leave gaps")
    return np.stack([slots[i] for i in range(len(slots))])
