"""What a config leaves to the data: how many steps its epochs are, how many classes there are.

A field that is 0 or empty in `configs/` takes its value from the data set here. The resolved config
is what a run follows, keeps in its folder and compares on resume.
"""

import math
from typing import Any

import ml_collections

from perceiver.kinds import specs


def resolve(config: ml_collections.ConfigDict, info: Any) -> ml_collections.ConfigDict:
    """Returns a locked copy of the config in which nothing is left open.

    - `train.steps` 0: the whole batches in `train.epochs` epochs; `optim.steps` 0: the same.
    - `train.eval_every`, `train.save_every` 0: once an epoch.
    - `optim.warmup_fraction` above 0: `optim.warmup_steps` is that share of the steps.
    - `data.seq_len` 0 of pairs and triplets: the tokens that a sentence encoder reads.
    - `model.classes` 0: as many as the data has (of a sentence encoder, only where it classifies
      pairs: elsewhere it has none); `model.image_shape` (): that of its images.

    Args:
      config: as `configs/` or the command line give it.
      info: the `data.DatasetInfo` of `config.data`.

    Raises:
      ValueError: no number of steps can be told, or the data has no classes or images.
    """
    resolved = ml_collections.ConfigDict(config.copy_and_resolve_references())
    with resolved.unlocked():
        _steps(resolved, info)
        if resolved.task == "sentences" and not resolved.data.seq_len:
            resolved.data.seq_len = _text_length(resolved.model)
        pairs = resolved.task == "sentences" and resolved.loss.objective != "classification"
        if "classes" in resolved.model and not resolved.model.classes and not pairs:
            resolved.model.classes = len(_needed(info.labels, "classes", info))
        if "image_shape" in resolved.model and not resolved.model.image_shape:
            resolved.model.image_shape = tuple(_needed(info.image_shape, "image_shape", info))
    return resolved.lock()


def _text_length(model: Any) -> int:
    spec = specs.parse(model.to_dict())
    return getattr(spec, "text_length", 1)  # of another kind, the task will refuse it


def _steps(config: ml_collections.ConfigDict, info: Any) -> None:
    epoch = info.examples["train"] / config.data.batch_size  # in steps
    if not config.train.steps:
        if not (math.isfinite(config.train.epochs) and config.train.epochs > 0):
            raise ValueError(
                f"train.steps=0 and train.epochs={config.train.epochs}: set one of them above 0"
            )
        config.train.steps = math.floor(config.train.epochs * epoch)
        if not config.train.steps:
            raise ValueError(
                f"train.epochs={config.train.epochs} of {info.examples['train']:,} examples are "
                f"less than one batch of data.batch_size={config.data.batch_size}: lower the "
                "latter, or set train.steps"
            )
    config.optim.steps = config.optim.steps or config.train.steps
    if config.optim.warmup_fraction:
        if not 0 < config.optim.warmup_fraction < 1:
            raise ValueError(
                f"optim.warmup_fraction={config.optim.warmup_fraction} must lie between 0 and 1"
            )
        config.optim.warmup_steps = round(config.optim.warmup_fraction * config.optim.steps)
    for field in ("eval_every", "save_every"):
        if not config.train[field]:
            config.train[field] = max(1, math.floor(epoch))


def _needed(value: Any, field: str, info: Any) -> Any:
    if not value:
        raise ValueError(
            f"model.{field} is unset and data set {info.name!r} does not define it; set it"
        )
    return value
