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


def _no_files(*_args: Any) -> tuple[dict[str, float], dict[str, Path]]:
    return {}, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A model with its loss and metrics, and what a run says and shows about it."""

    name: str
    # `loss` and `predict` use it on all devices: its inputs may be split over some of them. What
    # one host does alone (`show`, `remark`) it does with a model that is not.
    model: perceiver.Model
    # (rng, batch) -> (params, net_state)
    init: Callable[..., tuple[Any, Any]]
    # (params, net_state, rng, batch, *, is_training) -> (sums, net_state). `sums` maps names to
    # (sum, weight); sums["loss"] is what training minimises.
    loss: Callable[..., tuple[dict[str, tuple[Any, Any]], Any]]
    # (params, net_state, batch) -> (sums as in evaluation, {name: array [B, ...]}): what is kept of
    # each example for `assess`, small beside the model's outputs. None: a task has sums only.
    predict: Callable[..., tuple[dict[str, tuple[Any, Any]], dict[str, Any]]] | None = None
    # (predictions of all real examples, folder or None) -> (metrics, {what: file}): what one batch
    # cannot tell; writes tables and pictures into the folder, if there is one.
    assess: Callable[[Batch, Path | None], tuple[dict[str, float], dict[str, Path]]] = _no_files
    # What anybody needs to use the weights: labels, preprocessing. It goes into exported models.
    usage: dict[str, Any] = dataclasses.field(default_factory=dict)
    # Metrics of the progress line.
    shown: tuple[str, ...] = ("loss",)
    # validation batches -> scores of simple predictors to compare with, as "predictor/metric".
    references: Callable[[Iterable[Batch]], dict[str, float]] = _nothing
    # (params, net_state, validation batch, folder) -> {what: file}: pictures of what the model does
    # with some examples.
    show: Callable[[Any, Any, Batch, Path], dict[str, Path]] = _nothing
    # (params, net_state, validation batch) -> text: what a run says of some examples at each
    # evaluation. None: nothing.
    remark: Callable[[Any, Any, Batch], str] | None = None
    # (validation batch, folder) -> {what: file}: examples as files, to try the model on.
    samples: Callable[[Batch, Path], dict[str, Path]] = _nothing
