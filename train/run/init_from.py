"""Weights into a run: where `config.init_from` starts it from."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from perceiver.kinds import specs
from perceiver.kinds.resize import resize
from perceiver.pretrained import loading
from perceiver.weights import mapping, native
from train.experiment import Experiment
from train.step import TrainState

logger = logging.getLogger(__name__)


def with_weights(
    experiment: Experiment, state: TrainState, source: str, ignore: Sequence[str] = ()
) -> TrainState:
    """Returns a fresh state with the weights of another model.

    Args:
      experiment: of this run.
      state: its fresh state, whose values are kept for what is ignored.
      source: whatever `perceiver.load` takes: a run, an exported model, a released file or name.
        Weights for another image size are carried over (see `perceiver.kinds.resize`).
      ignore: module paths, or beginnings of them, that keep their fresh values: a head of another
        number of classes is "outputs/decoder/out".

    Raises:
      FileNotFoundError, ConnectionError: there is no such source.
      ValueError: its parameters are not those of this model, and not ignored; lists the paths.
    """
    saved = loading.read(source)
    fresh = experiment.placement.canonical(state)
    name = f"init_from.source={source!r}"
    params, net_state = fit(saved, experiment.task.model.spec, fresh, name, ignore)
    return experiment.placement.place(
        TrainState(
            step=state.step,
            params=params,
            net_state=net_state,
            opt_state=state.opt_state,
            ema=None if state.ema is None else params,
        )
    )


def fit(
    saved: native.Saved,
    spec: specs.Backbone,
    fresh: TrainState,
    name: str,
    ignore: Sequence[str] = (),
) -> tuple[Any, Any]:
    """Returns the (params, net_state) of a model with the weights of another.

    Args:
      saved: the other one, on the host.
      spec: of the model.
      fresh: its state; shapes are enough where nothing is ignored.
      name: of the source, for messages.
      ignore: as in `with_weights`.

    Raises:
      ValueError: as there.
    """
    theirs = _at_size(saved.params, saved.model.spec, spec)
    params = _merge(theirs, fresh.params, name, ignore, needed=True)
    return params, _merge(saved.state, fresh.net_state, name, ignore, needed=False)


def _at_size(params, theirs: specs.Backbone, ours: specs.Backbone):
    """Returns the parameters at this run's image size."""
    sizes = [getattr(spec, "image_shape", None) for spec in (theirs, ours)]
    if None in sizes or sizes[0][:2] == sizes[1][:2]:
        return params
    return resize(theirs, params, sizes[1][:2])[1]


def _merge(theirs, ours, name: str, ignore: Sequence[str], *, needed: bool) -> Mapping[str, Any]:
    old, new = mapping.flatten(theirs), mapping.flatten(ours)

    def ignored(key: str) -> bool:
        return any(f"{key}/".startswith(f"{prefix}/") for prefix in ignore)

    unused = [p for p in ignore if not any(f"{key}/".startswith(f"{p}/") for key in old | new)]
    if needed and unused:
        raise ValueError(
            f"init_from.ignore={list(ignore)}: no parameter lies below {unused}; give prefixes "
            f"of module paths, such as {next(iter(new)).rpartition('/')[0]!r}"
        )
    rows = [
        f"{key}: there {_shape(old, key)}, here {_shape(new, key)}"
        for key in sorted(old.keys() | new.keys())
        if not ignored(key) and _shape(old, key) != _shape(new, key)
    ]
    if rows:
        raise ValueError(
            f"{name} holds another model; make config.model match its "
            "spec, or list in init_from.ignore what to initialise anew:\n  " + "\n  ".join(rows)
        )
    kept = {key: x for key, x in new.items() if ignored(key)}
    if kept:
        logger.info(
            "init_from: %d arrays are initialised anew: %s", len(kept), ", ".join(sorted(kept))
        )
    return mapping.unflatten({key: kept[key] if key in kept else old[key] for key in new})


def _shape(arrays: Mapping[str, jax.Array], key: str):
    return tuple(arrays[key].shape) if key in arrays else None
