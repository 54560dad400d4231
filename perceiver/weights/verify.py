"""Whether weights are what they should be: complete, finite, and answering as was recorded."""

import dataclasses
import enum
from collections.abc import Sequence

import jax
import numpy as np

from perceiver.kinds import specs
from perceiver.kinds.models import build
from perceiver.kinds.released import MODELS
from perceiver.nn.layers import ACTIVATIONS
from perceiver.weights.huggingface.export import meaning
from perceiver.weights.mapping import flatten
from perceiver.weights.native import Saved
from perceiver.weights.reference_outputs import RECORDS, ReferenceOutputs

_SHOWN = 5


class Outcome(enum.IntEnum):
    """What came out; the exit status of the command."""

    VERIFIED = 0
    WRONG = 1
    UNKNOWN = 2  # nothing is wrong, and nothing is recorded to compare with


@dataclasses.dataclass(frozen=True)
class VerificationReport:
    """The outcome, and what was found, line by line."""

    outcome: Outcome
    lines: tuple[str, ...]


def verify(saved: Saved, records: Sequence[ReferenceOutputs] = RECORDS) -> VerificationReport:
    """Checks a model that was loaded, so its names, shapes and dtypes do fit."""
    arrays = flatten(saved.params) | flatten(saved.state)
    count = sum(x.size for x in arrays.values())
    bad = [name for name, x in arrays.items() if not np.isfinite(x).all()]
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        names = ", ".join(bad[:_SHOWN]) + more
        return VerificationReport(Outcome.WRONG, (f"not finite (NaN or infinity): {names}",))
    lines = [f"all names and shapes fit; all {count:,} values in {len(arrays)} arrays are finite"]
    means = meaning(saved.model.spec) | {"activation": specs.Backbone.activation}
    known = [x for x in records if meaning(specs.parse(MODELS[x.model])) == means]
    if not known:
        names = ", ".join(sorted({record.model for record in records}))
        lines.append(
            f"no recorded activations are known for this {saved.model.spec.kind} (only for "
            f"{names}), so the values themselves were not verified"
        )
        return VerificationReport(Outcome.UNKNOWN, tuple(lines))
    for record in known:
        problems, remark = _compare(saved, record)
        lines += problems or [f"outputs match those recorded for {record.model}: {remark}"]
        if problems:
            return VerificationReport(Outcome.WRONG, tuple(lines))
    return VerificationReport(Outcome.VERIFIED, tuple(lines))


def _compare(saved: Saved, record: ReferenceOutputs) -> tuple[list[str], str]:
    """Returns what is wrong, line by line, and how well the logits agree.

    The form of GELU that answers more closely counts: see `recorded`.
    """
    expected = np.asarray(record.logits)
    difference, activation, actual, greedy = min(
        (_answer(saved, record, activation) for activation in ACTIVATIONS), key=lambda x: x[0]
    )
    problems = []
    if not difference <= record.tolerance:
        problems.append(
            f"the logits of {record.model} differ from the recorded ones by {difference:.2g} "
            f"(allowed: {record.tolerance:.0e}):\n{np.array2string(actual, precision=4)}\n"
            f"recorded:\n{np.array2string(expected, precision=4)}"
        )
    if greedy != record.greedy:
        problems.append(
            f"the most likely ids of {record.model} are {greedy}, recorded {record.greedy}"
        )
    return problems, f"logits within {difference:.1e}, with {activation}"


def _answer(saved: Saved, record: ReferenceOutputs, activation: str):
    """Returns (largest difference, activation, the recorded logits' counterparts, greedy ids)."""
    spec = dataclasses.replace(
        saved.model.spec, dtype="float32", operands="float32", activation=activation
    )
    apply = jax.jit(build(spec).apply)
    logits = np.asarray(apply(saved.params, saved.state, None, record.inputs())[0][0])
    expected = np.asarray(record.logits)
    actual = logits[: expected.shape[0], : expected.shape[1]]
    greedy = tuple(int(i) for i in logits[record.positions].argmax(axis=-1))
    return float(np.abs(actual - expected).max()), activation, actual, greedy
