"""The `Task` value."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import perceiver

Batch = dict[str, np.ndarray]


def _nothing(*_args: Any) -> dict[str, float]:
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A model with its loss and metrics, and what a run says and shows about it."""

    name: str
    model: perceiver.Model
    # (rng, batch) -> (params, net_state)
    init: Callable[..., tuple[Any, Any]]
    # (params, net_state, rng, batch, *, is_training) -> (sums, net_state). `sums` maps names to
    # (sum, weight); sums["loss"] is what training minimises.
    loss: Callable[..., tuple[dict[str, tuple[Any, Any]], Any]]
    # What anybody needs to use the weights: labels, preprocessing. It goes into exported models.
    usage: dict[str, Any] = dataclasses.field(default_factory=dict)
    # Metrics of the progress line.
    shown: tuple[str, ...] = ("loss",)
    # validation batches -> scores of simple predictors to compare with, as "predictor/metric".
    references: Callable[[Iterable[Batch]], dict[str, float]] = _nothing
    # (params, net_state, validation batch, folder) -> {what: file}: pictures and samples, drawn at
    # the end of a run.
    show: Callable[[Any, Any, Batch, Path], dict[str, Path]] = _nothing
