"""Running statistics of batch norm, where a file keeps less of them than a model does.

Haiku keeps an average without its bias (`average`), the sum behind it (`hidden`) and the number of
steps (`counter`): average = hidden / (1 - 0.9**counter). Files often hold the average alone. After
some 160 steps the correction is 1 in float32, so for a trained model nothing is lost.
"""

from collections.abc import Mapping

import numpy as np

from perceiver.weights.mapping import Params

SETTLED = 1000  # steps after which an average is surely its own hidden sum
_UNBIASED = 165  # from here on 1 - 0.9**counter is 1 in float32
_HISTORY = ("hidden", "counter")


def without_history(tree):
    """Returns the tree without `hidden` and `counter`: what must come from a file."""
    kept = {
        module: {name: x for name, x in leaves.items() if not _is_history(module, name)}
        for module, leaves in tree.items()
    }
    return {module: leaves for module, leaves in kept.items() if leaves}


def has_history(keys) -> bool:
    """Whether sources named as in Haiku hold `hidden` and `counter`."""
    return any(_is_history(*key.rpartition("/")[::2]) for key in keys)


def with_history(tree: Mapping[str, Mapping[str, np.ndarray]], counter: int = SETTLED) -> Params:
    """Returns the tree with `hidden` and `counter` beside each average.

    A counter too small for the average to be its own hidden sum becomes `SETTLED`.
    """
    counter = counter if counter >= _UNBIASED else SETTLED
    return {
        module: dict(leaves)
        if not _is_ema(module)
        else {
            "average": leaves["average"],
            "counter": np.array(counter, np.int32),
            "hidden": np.copy(leaves["average"]),
        }
        for module, leaves in tree.items()
    }


def counter(state: Mapping[str, Mapping[str, np.ndarray]]) -> int:
    """Returns the number of steps of a state with batch norm."""
    return next(int(leaves["counter"]) for leaves in state.values() if "counter" in leaves)


def _is_ema(module: str) -> bool:
    return module.endswith(("/mean_ema", "/var_ema"))


def _is_history(module: str, name: str) -> bool:
    return _is_ema(module) and name in _HISTORY
