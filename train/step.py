"""The training step: one pure function `(state, batch) -> (state, sums)` that knows no devices.

Gradients are taken of the loss *sum* and divided by the total weight at the very end, after
micro-batches are added up and `mean` has been applied over replicas. A ratio of totals is exact
however a batch is cut, also for masked losses whose weight differs from piece to piece; a mean of
means is not.

Randomness is never stored: every key is derived from (seed, stream, step), so that a resumed run
draws what an uninterrupted one would have drawn.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from train.guard import finite
from train.optim.optimizers import global_norm

Tree = Any
Batch = Mapping[str, Any]
Sums = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, weight), both f32 []


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step reads and replaces: what a checkpoint must hold."""

    step: jax.Array  # i32 [], steps taken so far
    params: Tree  # what the optimiser moves
    net_state: Tree  # what the network itself moves: batch-norm statistics; often empty
    opt_state: Tree
    ema: Tree | None  # exponential moving average of params, None where it is off


def key_for(seed: int, stream: str, step: int | jax.Array) -> jax.Array:
    """The random key of a named stream at a step: a function of its arguments only.

    Args:
      seed: the run's one seed.
      stream: what the randomness is for ("init", "train", ...); streams are independent.
      step: steps taken so far; may be traced.
    """
    # Python's own hash of a string differs from process to process.
    return jax.random.fold_in(
        jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode())), step
    )


def init_state(
    task: Any,
    optimizer: optax.GradientTransformation,
    seed: int,
    batch: Batch,
    ema_decay: float | None = None,
) -> TrainState:
    """The state before the first step.

    Run it through `Placement.init`, which lets each array be born where it will live.

    Args:
      task: has `init(rng, batch) -> (params, net_state)`.
      optimizer: its state starts here.
      seed: the run's one seed.
      batch: arrays or `jax.ShapeDtypeStruct`s; only shapes and dtypes are used, and of the leading
        axis nothing, since parameters cannot depend on how many examples a batch has.
      ema_decay: a positive number starts an average of the parameters; 0 or None keeps none.
    """
    example = {name: jnp.zeros((1, *x.shape[1:]), x.dtype) for name, x in batch.items()}
    params, net_state = task.init(key_for(seed, "init", 0), example)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        net_state=net_state,
        opt_state=optimizer.init(params),
        # A copy: a step donates its state, and one buffer cannot be donated twice.
        ema=jax.tree.map(jnp.copy, params) if ema_decay else None,
    )


def make_train_step(
    task: Any,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    micro_batches: int = 1,
    mean: Callable[[Tree], Tree] = lambda tree: tree,
    replica: Callable[[], int | jax.Array] = lambda: 0,
    ema_decay: float | None = None,
    skip_non_finite: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
    """Builds the training step.

    Args:
      task: has `loss(params, net_state, rng, batch, *, is_training) -> (sums, net_state)`, where
        `sums["loss"]` is the pair (sum, weight) whose ratio is minimised.
      optimizer: gets the gradient of that ratio.
      seed: the run's one seed.
      micro_batches: pieces that a batch is worked through in, to save memory; the update is that
        of the whole batch. Must divide the batch (of one replica).
      mean: averages (gradient sums, metric sums, net_state) over replicas; applied once a step.
      replica: index of this replica, for randomness of its own.
      ema_decay: weight of the past in the average of the parameters; 0 or None for no average.
      skip_non_finite: a step that makes a number which is not finite, in its sums, its gradient or
        the state after it, changes nothing but `state.step`; see `finite.unless_finite`. Old and
        new state are then in memory at the same time.

    Returns:
      `step(state, batch) -> (state, sums)`. Besides the task's metrics, `sums` has "grad_norm".
      A batch of weight zero gives the gradient zero (never NaN): the optimiser's own momentum and
      weight decay still act, and `state.step` advances.
    """

    def loss_sum(params, net_state, rng, batch):
        sums, net_state = task.loss(params, net_state, rng, batch, is_training=True)
        return sums["loss"][0], (sums, net_state)

    def differentiate(params, net_state, rng, batch):
        """One micro-batch: (gradient of the loss sum, sums, next net_state)."""
        grads, (sums, net_state) = jax.grad(loss_sum, has_aux=True)(params, net_state, rng, batch)
        return grads, sums, net_state

    def accumulate(params, net_state, rng, batch):
        """`differentiate` over micro-batches, one after another, added up."""

        def body(carry, piece):
            total, net_state = carry
            index, micro_batch = piece
            grads, sums, net_state = differentiate(
                params, net_state, jax.random.fold_in(rng, index), micro_batch
            )
            return (jax.tree.map(jnp.add, total, grads), net_state), sums

        start = (jax.tree.map(jnp.zeros_like, params), net_state)
        pieces = (jnp.arange(micro_batches), _split(batch, micro_batches))
        (grads, net_state), sums = jax.lax.scan(body, start, pieces)
        return grads, jax.tree.map(lambda x: x.sum(axis=0), sums), net_state

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        rng = jax.random.fold_in(key_for(seed, "train", state.step), replica())
        gradients = differentiate if micro_batches == 1 else accumulate
        grads, sums, net_state = mean(gradients(state.params, state.net_state, rng, batch))

        weight = sums["loss"][1]
        # no weight: the gradient sum is zero already
        scale = 1.0 / jnp.where(weight > 0, weight, 1.0)
        # The norm is taken of what is in memory already, and so cheap a factor joins each use of
        # the gradient: XLA would write a quotient, or what a norm is taken of, to memory first.
        norm = global_norm(grads) * scale
        grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        update = optax.with_extra_args_support(optimizer).update
        updates, opt_state = update(grads, state.opt_state, state.params, norm=norm)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 1.0 - ema_decay) if ema_decay else None
        sums = sums | {"grad_norm": (norm, jnp.ones(()))}
        after = TrainState(state.step + 1, params, net_state, opt_state, ema)
        return finite.unless_finite(state, after, sums) if skip_non_finite else (after, sums)

    return step


def make_eval_step(task: Any) -> Callable[[TrainState, Batch], Sums]:
    """Builds `step(state, batch) -> sums`, on the averaged parameters where there are any.

    Sums of several batches add up, so that their ratio is the metric of the whole split. The task
    gets no random key: evaluation is a function of state and batch.
    """

    def step(state: TrainState, batch: Batch) -> Sums:
        params = state.params if state.ema is None else state.ema
        sums, _ = task.loss(params, state.net_state, None, batch, is_training=False)
        return sums

    return step


def make_predict_step(task: Any) -> Callable[[TrainState, Batch], tuple[Sums, Batch]]:
    """Builds `step(state, batch) -> (sums, predictions [B, ...])`, as `make_eval_step` does.

    Without a `task.predict` there are no predictions.
    """
    evaluate = make_eval_step(task)

    def step(state: TrainState, batch: Batch) -> tuple[Sums, Batch]:
        if task.predict is None:
            return evaluate(state, batch), {}
        params = state.params if state.ema is None else state.ema
        return task.predict(params, state.net_state, batch)

    return step


def is_finite(sums: Mapping[str, tuple[float, float]]) -> bool:
    """Whether all fetched sums are finite: a NaN in any loss or gradient since the last look shows.

    Args:
      sums: as `Placement.fetch` returns them, possibly added over steps. A NaN sticks to a sum, and
        the gradient norm is among them, so looking at each log boundary and before each save is
        enough to find it. What the optimiser broke shows one step later: `finite.broken_arrays`
        is for the state itself.
    """
    return all(math.isfinite(value) for pair in sums.values() for value in pair)


def _split(batch: Batch, pieces: int) -> Batch:
    """[B, ...] -> [pieces, B / pieces, ...]; piece i holds rows i, i + pieces, i + 2 pieces, ...

    Strided rather than contiguous: where devices hold contiguous rows of the batch, each of them
    then holds an equal share of every piece, and no example has to move between devices.
    """

    def split(x):  # [B, ...]
        return x.reshape(x.shape[0] // pieces, pieces, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, batch)
