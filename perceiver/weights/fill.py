"""From a file's arrays to the parameters and the state of a model."""

from collections.abc import Sequence

import jax

from perceiver.kinds.models import Model
from perceiver.weights import batch_norm
from perceiver.weights.mapping import Params, Rule, mismatches, translate
from perceiver.weights.stored import Arrays


def fill(
    model: Model, stored: Arrays, rules: Sequence[Rule], *, steps: int | None
) -> tuple[Params, Params]:
    """Returns the model's (params, state), read array by array.

    Args:
      model: whose names and shapes are wanted.
      stored: the file's arrays.
      rules: the file's table.
      steps: of batch norm's averages, where the file holds these only; None: it holds all state.

    Raises:
      ValueError: lists what does not fit, see `mapping.translate`.
    """
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    filled = translate(stored, _target(params, state, steps), rules)
    kept = {module: filled[module] for module in state}
    return (
        {module: filled[module] for module in params},
        kept if steps is None else batch_norm.with_history(kept, steps),
    )


def differences(
    model: Model, stored: Arrays, rules: Sequence[Rule], *, steps: int | None
) -> list[str]:
    """Returns what would keep `fill` from its work, one line each; reads no array."""
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    return mismatches(stored, _target(params, state, steps), rules)


def _target(params, state, steps: int | None):
    return {**params, **(state if steps is None else batch_norm.without_history(state))}
