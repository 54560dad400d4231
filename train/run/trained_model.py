"""A model that has been trained, with the experiment that it is to be looked at in."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perceiver import attention
from perceiver.kinds import specs
from perceiver.pretrained import loading
from perceiver.weights import files
from train.checkpoint import folders
from train.checkpoint.checkpoint import Checkpoints
from train.devices import mesh
from train.experiment import Experiment, make
from train.run import init_from, workdir
from train.step import TrainState

# Fields of a spec that change no output (where nothing is drawn), or to which weights are fitted.
_FREE = (
    *(field for field in loading.COMPUTE if field != "activation"),
    "attention_dropout_rate",
    "dropout_rate",
    "image_shape",
)


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """Weights on the devices of an experiment's placement."""

    experiment: Experiment
    state: TrainState  # its optimiser's part is empty where there was none
    source: str
    step: int | None = None  # of a run
    notices: tuple[str, ...] = ()  # what a user should know before believing a number


def from_run(folder: str | os.PathLike, config: Any = None) -> TrainedModel:
    """Returns the last checkpoint of a run.

    Args:
      folder: of the run, a path or a URL.
      config: the run's, changed; None: `config_here`.

    Raises:
      FileNotFoundError: no run, no checkpoint yet, or no data.
      ValueError: a broken config, or settings that do not fit together.
    """
    try:
        experiment = make(config_here(folder) if config is None else config)
    except (AttributeError, KeyError, TypeError) as error:  # of a config that was edited
        raise ValueError(f"{folder}: its config makes no experiment: {error!r}") from error
    with Checkpoints(folders.of(folder) / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(experiment.abstract_state())
    if restored is None:
        raise FileNotFoundError(f"{folder} has no checkpoint yet; continue training it")
    return TrainedModel(
        experiment, restored.state, str(folder), restored.step, _notices(folder, experiment)
    )


def _notices(folder: str | os.PathLike, experiment: Experiment) -> tuple[str, ...]:
    """Says where a run's model was used with other labels or preprocessing than the data gives."""
    exported = folders.of(folder) / "model"
    if not (exported / "config.json").exists():
        return ()
    usage = files.read_json(exported / "config.json").get("usage", {})
    return tuple(differing_usage(usage, experiment.task.usage))


def config_here(folder: str | os.PathLike) -> Any:
    """Returns the config of a run, on a mesh that any number of devices makes; raises as `read`."""
    config = workdir.read(folder)
    with config.unlocked():
        config.mesh.update(mesh.DEFAULT)
    return config


def from_weights(config: Any, source: str) -> TrainedModel:
    """Returns any weights in the experiment of a config.

    Args:
      config: says model and data.
      source: whatever `perceiver.load` takes: a released name, a file or folder of any format, a
        run. Weights for another image size are carried over (see `perceiver.kinds.resize`).

    Raises:
      FileNotFoundError, ImportError, ConnectionError: there is no such source, or no data.
      ValueError: the weights are of another model than `config.model`; names what differs.
    """
    experiment = make(config)
    saved = loading.read(source)
    spec = experiment.task.model.spec
    _check_spec(saved.model.spec, spec, source)
    fresh = experiment.abstract_state()
    params, net_state = init_from.fit(saved, spec, fresh, f"--weights={source}")
    state = TrainState(np.int32(0), params, net_state, opt_state=(), ema=None)
    notices = (
        *differing_usage(saved.usage, experiment.task.usage),
        *differing_kernel(saved.model.spec, spec),
    )
    return TrainedModel(experiment, experiment.placement.place(state), source, notices=notices)


def _check_spec(theirs: specs.Backbone, ours: specs.Backbone, source: str) -> None:
    """Compares two models by their fields: equal shapes can still compute something else."""
    old, new = theirs.to_dict(), ours.to_dict()
    rows = [
        f"{name}: weights {old.get(name)!r}, config.model {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in _FREE
    ]
    if rows:
        raise ValueError(
            f"--weights={source} holds another model than --config; choose the matching variant, "
            "or set --config.model.FIELD:\n  " + "\n  ".join(rows)
        )


def differing_usage(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Says where weights were used with other labels or preprocessing than the data gives."""
    notices = []
    for name, old in (theirs.get("image") or {}).items():
        new = ours.get("image", {}).get(name)
        if new is not None and not _is_close(old, new):
            notices.append(f"image.{name}: the weights were used with {old}, the data has {new}")
    old, new = theirs.get("labels"), ours.get("labels")
    if old and new and list(old) != list(new):
        places = [i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
        where = f"class {places[0]} is {old[places[0]]!r} there and {new[places[0]]!r} here; "
        notices.append(
            f"labels: {len(places) or abs(len(old) - len(new))} of {len(new)} names differ; "
            f"{where if places else ''}check whether the classes are in the same order"
        )
    return notices


def differing_kernel(theirs: specs.Spec, ours: specs.Spec) -> list[str]:
    """Says where weights of one attention are used with an estimate of it, or the reverse."""
    old, new = (getattr(spec, "kernel", "auto") for spec in (theirs, ours))
    if old == new or not {old, new} & attention.APPROXIMATE:
        return []
    return [
        f"kernel: the weights were used with {old}, this model has {new}: fine-tune them for it"
    ]


def _is_close(old: float | Sequence[float], new: float | Sequence[float]) -> bool:
    return np.shape(old) == np.shape(new) and np.allclose(old, new, rtol=0, atol=1e-3)
