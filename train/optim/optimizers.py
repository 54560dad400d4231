"""Optimisers, from `config.optim`: LAMB in the papers' order, and AdamW.

LAMB (You et al. 2020, arXiv:1904.00962) as Perceiver IO trains with it (appendix A.1):

    clip by global norm -> Adam scaling -> + weight decay -> trust ratio -> x -learning rate

The trust ratio |parameters| / |update| belongs to one layer's matrix. A stack of L layers is stored
as one array with a leading axis L, so a ratio per *array* would tie the layers of a stack together,
and the same model stored unstacked would train differently. Here it is always per layer.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from perceiver.model.processor import is_stacked
from train.optim import schedules

NOT_DECAYED = ("b", "scale", "offset")  # biases, and what norms learn


class OptimConfig(schedules.ScheduleConfig, Protocol):
    """The fields of `config.optim` that are read here, beside those of the schedule."""

    name: str  # a key of OPTIMISERS
    b1: float  # decay of the mean of gradients
    b2: float  # decay of the mean of squared gradients
    eps: float  # added to the root of the latter
    weight_decay: float  # decoupled: added to the update, not to the gradient
    clip_norm: float  # largest global norm of a gradient; 0 = never clip


def make(config: OptimConfig) -> optax.GradientTransformation:
    """Builds the optimiser that `config.name` names, learning-rate schedule included.

    It works on any tree `{"module/path": {"name": array}}`, inside jit, pmap and on sharded arrays.
    Its state is a pytree of arrays, whose structure depends on `config.name` only.

    Args:
        config: The `optim` section, or anything with its attributes.

    Raises:
        ValueError: On an unknown name or a value out of range; names the field and the remedy.
    """
    if config.name not in OPTIMISERS:
        raise ValueError(
            f"optim.name={config.name!r} is unknown; choose one of {', '.join(OPTIMISERS)}"
        )
    for field in ("b1", "b2"):
        value = getattr(config, field)
        if not 0 <= value < 1:
            raise ValueError(f"optim.{field}={value} must be at least 0 and below 1, such as 0.9")
    if not (math.isfinite(config.eps) and config.eps > 0):
        raise ValueError(f"optim.eps={config.eps} must be finite and above 0, such as 1e-6")
    for field in ("weight_decay", "clip_norm"):
        value = getattr(config, field)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"optim.{field}={value} must be finite and at least 0 (0 = off)")
    return OPTIMISERS[config.name](config, schedules.make(config))


def _lamb(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    return optax.chain(
        _clip(config.clip_norm),
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
        scale_by_layer_trust_ratio(),
        optax.scale_by_learning_rate(schedule),
    )


def _adamw(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    return optax.chain(
        _clip(config.clip_norm),
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
        optax.scale_by_learning_rate(schedule),
    )


OPTIMISERS: dict[str, Callable[[OptimConfig, optax.Schedule], optax.GradientTransformation]] = {
    "lamb": _lamb,
    "adamw": _adamw,
}


def global_norm(tree: optax.Updates) -> jax.Array:
    """Returns the root of the sum of squares of all elements, f32[].

    As one product of each array with itself: XLA's CPU backend first writes the squares of
    `jnp.sum(x**2)` to memory.
    """

    def squares(x):
        axes = tuple(range(x.ndim))
        dimensions = ((axes, axes), ((), ()))
        precision = jax.lax.Precision.HIGHEST
        return jax.lax.dot_general(x, x, dimensions, precision, jnp.float32)

    return jnp.sqrt(sum(squares(x) for x in jax.tree.leaves(tree)))


def _clip(limit: float) -> optax.GradientTransformation:
    if not limit:
        return optax.identity()

    def update(updates, state, params=None, *, norm=None, **_):
        """`norm` is that of the updates, from who knows it already."""
        del params
        norm = global_norm(updates) if norm is None else norm
        factor = limit / jnp.maximum(norm, limit)
        return jax.tree.map(lambda x: x * factor.astype(x.dtype), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def scale_by_layer_trust_ratio() -> optax.GradientTransformation:
    """Scales each layer's update by |parameters| / |update|; by 1 where either norm is 0.

    `optax.scale_by_trust_ratio` with one ratio for each of the L matrices of a stacked array
    (below a path component "layers") and one for every other array.
    """

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("the trust ratio needs the parameters: update(grads, state, params)")
        return jax.tree.map_with_path(_trust, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _trust(path: Sequence[Any], update: jax.Array, param: jax.Array) -> jax.Array:
    stacked = is_stacked(_split(path)[0])
    axes = tuple(range(1 if stacked else 0, param.ndim))
    param_norm = _norm(param, axes)  # [L, 1, ...] when stacked, else [1, 1, ...]
    update_norm = _norm(update, axes)
    is_zero = (param_norm == 0) | (update_norm == 0)
    ratio = jnp.where(is_zero, 1.0, param_norm / jnp.where(is_zero, 1.0, update_norm))
    return update * ratio.astype(update.dtype)


def _norm(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axes, keepdims=True))


def decay_mask(params: optax.Params) -> optax.Params:
    """Marks the arrays that weight decay pulls towards 0.

    All but biases and what norms learn, by name. Latents, learned positions and embeddings
    (`table`) are decayed, as in the papers' runs (Perceiver IO, appendix A.1).

    Args:
        params: Any tree of dicts whose innermost keys are array names.

    Returns:
        The same tree with a bool for each array.
    """
    return jax.tree.map_with_path(lambda path, _: _split(path)[1] not in NOT_DECAYED, params)


def _split(path: Sequence[Any]) -> tuple[str, str]:
    """Splits a tree path into (module path, array name), however deep the dicts nest."""
    module, _, name = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")
    return module, name
