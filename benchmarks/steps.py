"""Training steps of released models, as the trainer builds them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import data
from configs import common
from perceiver import Sequence, specs
from train import optim as optimisers
from train import step, tasks


class Step(NamedTuple):
    """A training step: forward, backward and the optimiser."""

    run: Callable  # (state, batch) -> (state, sums), on one device
    make_run: Callable[..., Callable]  # what `Placement.compile_train` takes
    init: Callable[[], step.TrainState]
    batch: dict[str, jax.ShapeDtypeStruct]

    @property
    def state(self) -> Any:
        """The state's shapes."""
        return jax.eval_shape(self.init)


def make(
    spec: dict[str, Any],
    batch_size: int,
    *,
    optim: Mapping[str, Any] | None = None,
    sequence: Sequence | None = None,
) -> Step:
    """Builds a training step.

    Args:
      spec: such as `released.MODELS[name]`.
      batch_size: examples.
      optim: fields of the config's `optim` section to change; without, LAMB in the papers' order.
      sequence: the mesh axis that splits the elements of an example, if any.
    """
    parsed = specs.parse(spec)
    per_example = {"mask": ((), jnp.bool_)}
    if isinstance(parsed, specs.ImageClassifier):
        kind, classes = "classification", tuple(map(str, range(parsed.classes)))
        facts = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "image_shape": parsed.image_shape}
        info = data.DatasetInfo(name="benchmark", examples={}, labels=classes, **facts)
        per_example["label"] = ((), jnp.int32)
    else:
        kind, info = "masked_lm", data.DatasetInfo(name="benchmark", examples={})
        per_example["targets"] = ((parsed.max_length,), jnp.int32)
        per_example["target_mask"] = ((parsed.max_length,), jnp.bool_)
    config = common.get_config(kind, spec)
    config.optim.update(optim or {})
    config.data.seq_len = getattr(parsed, "max_length", config.data.seq_len)
    task, optimizer = tasks.make(config, info, sequence), optimisers.make(config.optim)
    batch = task.model.example_inputs(batch_size) | {
        key: jax.ShapeDtypeStruct((batch_size, *shape), dtype)
        for key, (shape, dtype) in per_example.items()
    }
    init = functools.partial(step.init_state, task, optimizer, 0, batch)
    make_run = functools.partial(step.make_train_step, task, optimizer, seed=0)
    return Step(make_run(), make_run, init, batch)
