"""How far one update moves a model's output, against its depth (DeepNet, section 4 and figure 5).

What is measured is ||F(x, theta*) - F(x, theta)||: F(x, theta) are the features behind the last
layer for a batch x of text, ||.|| their root mean square, so that a layer norm's output has size 1.
theta are the stack's parameters, and theta* what they are after one plain step of gradient descent,
or a few of AdamW, on the bytes hidden in x. Embedding, positions and the head's bias, of which the
theory does not speak, stay as they are.

Beside it stands the bound of theorem 4.2,

  sum over branches i of sqrt(v_i^2 + w_i^2) / alpha * ||theta_i* - theta_i||,

with the actual updates: v_i = w_i = beta, the gain that values and outputs, or both layers of an
MLP, start from (1 in a post-norm stack), and the Euclidean norm of all parameters of branch i, its
queries, keys, biases and norm included. The theory derives it for one channel and for weights
without bias; of 32 channels it holds up to a constant. A pre-norm stack has no such bound.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from configs import masked_lm
from perceiver.processor import is_stacked
from perceiver.residual import Join
from train import experiment

RESIDUALS = ("post_norm", "deepnorm", "pre_norm")
DEPTHS = (6, 12, 25, 50, 100, 200, 500, 1000)
DESCENT_RATE = 0.01
ADAM_RATE = 1e-3
ADAM_STEPS = 8

Tree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """What updates do to a model of one depth."""

    residual: str
    layers: int
    gradient: float  # Euclidean norm of the stack's gradient, before the first update
    descent: float  # change of the features by a step of gradient descent
    descent_bound: float | None  # theorem 4.2; None: a pre-norm stack
    adam: float  # change of the features by ADAM_STEPS of AdamW
    adam_bound: float | None


def measure(residual: str, layers: int, *, seed: int = 0) -> Update:
    """Updates a fresh model of `configs/masked_lm.py:deepnet`, but for its depth and residual."""
    config = masked_lm.get_config("deepnet")
    config.model.update(residual=residual, layers=layers, remat="layer")
    parts = experiment.make(config)
    model, batch = parts.task.model, parts.first_batch()
    batch = {name: x[: config.data.batch_size] for name, x in batch.items()}

    @jax.jit
    def run(key):
        params, state = model.init(key)
        rest, stack = split(params)

        def features(stack):
            return model.encode(rest | stack, state, batch).astype(jnp.float32)

        def loss(stack):
            sums, _ = parts.task.loss(rest | stack, state, None, batch, is_training=False)
            return sums["loss"][0] / sums["loss"][1]

        gradient = jax.grad(loss)
        first = gradient(stack)
        descended = jax.tree.map(lambda x, g: x - DESCENT_RATE * g, stack, first)
        adapted = adapt(gradient, stack)
        before, found = features(stack), {"gradient": optax.global_norm(first)}
        for name, after in {"descent": descended, "adam": adapted}.items():
            found[name] = root_mean_square(features(after) - before)
            found[f"{name}_bound"] = bound(stack, after, model.spec.join)
        return found

    found = jax.tree.map(float, run(jax.random.key(seed)))
    return Update(residual=residual, layers=layers, **found)


def split(params: Tree) -> tuple[Tree, Tree]:
    """Returns (all other parameters, those of stacked layers)."""
    stack = {path: leaves for path, leaves in params.items() if is_stacked(path)}
    return {path: leaves for path, leaves in params.items() if path not in stack}, stack


def adapt(gradient: Callable, params: Tree) -> Tree:
    """Returns the parameters after ADAM_STEPS of AdamW on the same batch."""
    optimizer = optax.adamw(ADAM_RATE)

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, ADAM_STEPS, step, (params, optimizer.init(params)))[0]


def bound(before: Tree, after: Tree, join: Join) -> jax.Array | None:
    """Returns the bound of theorem 4.2 on what a stack's update does, see above."""
    if join.alpha is None:
        return None
    gain = 1.0 if join.beta is None else join.beta
    squares: dict[str, jax.Array] = {}  # branch -> [layers]
    for path, leaves in before.items():
        branch = "attend" if "/attend/" in f"{path}/" else "feed_forward"
        for name, x in leaves.items():
            change = (after[path][name] - x).reshape(x.shape[0], -1)
            squares[branch] = squares.get(branch, 0.0) + jnp.sum(change**2, axis=1)
    norms = sum(jnp.sqrt(x).sum() for x in squares.values())
    return (2 * gain**2) ** 0.5 / join.alpha * norms


def root_mean_square(x: jax.Array) -> jax.Array:
    """Returns the size of an element."""
    return jnp.sqrt(jnp.mean(x**2))
