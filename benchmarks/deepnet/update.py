"""How far one update moves a model's output, against its depth (DeepNet, section 4 and figure 5).

What is measured is ||F(x, theta*) - F(x, theta)||: F(x, theta) are the features behind the last
layer for a batch x of text, ||.|| their root mean square, so that what a norm gives has size 1.
theta* is theta after one plain step of gradient descent, or after a few of AdamW, on the bytes
hidden in x. Embedding, positions and the head's bias, of which the theory does not speak, stay.

It is measured for all parameters of the stack, and for some of them: theta + (theta* - theta) there
alone. "weights" are those of theorem 4.2: of values and attention outputs, and of MLPs. The theorem
bounds what their updates do by

  sum over branches i of sqrt(v_i^2 + w_i^2) / alpha * ||theta_i* - theta_i||,

which stands beside it, evaluated with the actual updates: v_i = w_i = beta, the gain that both
matrices of a branch start from (1 in a post-norm stack), and the Euclidean norm of both updates.
It is derived for one channel and without biases; of 32 channels it holds up to a constant.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from perceiver.processor import is_stacked
from perceiver.residual import Join

from configs import masked_lm
from train import experiment

RESIDUALS = ("post_norm", "deepnorm")
DEPTHS = (6, 12, 25, 50, 100, 200, 500, 1000)
KINDS = ("weights", "queries", "biases", "norms")  # of a stack's parameters; queries: keys too
DESCENT_RATE = 0.01
ADAM_RATE = 1e-4
ADAM_STEPS = 8

Tree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """What updates do to a model of one depth."""

    residual: str
    layers: int
    spread: float  # standard deviation of the features over positions: 0 if all are the same
    descent: dict[str, float]  # change by a step of gradient descent, of each kind and of "all"
    descent_bound: float  # theorem 4.2
    adam: dict[str, float]  # change by ADAM_STEPS of AdamW
    adam_bound: float


def measure(residual: str, layers: int, *, seed: int = 0) -> Update:
    """Updates a fresh model of `configs/masked_lm.py:deepnet`, but with norms that learn.

    And with an embedding a fifth as large, so that no logit dominates the gradient.
    """
    config = masked_lm.get_config("deepnet")
    config.model.update(residual=residual, layers=layers, norm_learned=True, remat="layer")
    config.model.embedding_scale = 0.1
    parts = experiment.make(config)
    model, batch = parts.task.model, parts.first_batch()
    batch = {name: x[: config.data.batch_size] for name, x in batch.items()}

    @jax.jit
    def run(key):
        params, state = model.init(key)
        rest, stack = _split(params)

        def features(stack):
            return model.encode(rest | stack, state, batch).astype(jnp.float32)

        def loss(stack):
            sums, _ = parts.task.loss(rest | stack, state, None, batch, is_training=False)
            return sums["loss"][0] / sums["loss"][1]

        before, found = features(stack), {}
        optimizers = {
            "descent": (optax.sgd(DESCENT_RATE), 1),
            "adam": (optax.adamw(ADAM_RATE), ADAM_STEPS),
        }
        for name, (optimizer, steps) in optimizers.items():
            after = _descend(jax.grad(loss), stack, optimizer, steps)
            changes = jax.lax.map(
                lambda chosen, after=after: _size(features(_mixed(stack, after, chosen)) - before),
                jnp.concatenate([jnp.eye(len(KINDS)), jnp.ones([1, len(KINDS)])]),
            )
            found[name] = dict(zip((*KINDS, "all"), changes, strict=True))
            found[f"{name}_bound"] = bound(stack, after, model.spec.join)
        return found | {"spread": _size(before - before.mean(axis=1, keepdims=True))}

    found = jax.tree.map(float, run(jax.random.key(seed)))
    return Update(residual=residual, layers=layers, **found)


def bound(before: Tree, after: Tree, join: Join) -> jax.Array:
    """Returns the bound of theorem 4.2 on what a stack's updated weights do, see above."""
    gain = 1.0 if join.beta is None else join.beta
    squares: dict[str, Any] = {"attend": 0.0, "feed_forward": 0.0}  # of each layer: [L]
    for path, leaves in before.items():
        for name, x in leaves.items():
            if kind(path, name) == "weights":
                branch = next(part for part in squares if f"/{part}/" in path)
                squares[branch] += jnp.sum((after[path][name] - x) ** 2, axis=(1, 2))
    norms = sum(jnp.sqrt(x).sum() for x in squares.values())
    return (2 * gain**2) ** 0.5 / join.alpha * norms


def kind(path: str, name: str) -> str:
    """Returns which of KINDS an array of a stack is."""
    if name in ("scale", "offset"):
        return "norms"
    if name == "b":
        return "biases"
    return "queries" if path.endswith(("/query", "/key")) else "weights"


def _split(params: Tree) -> tuple[Tree, Tree]:
    """Returns (all other parameters, those of stacked layers)."""
    stack = {path: leaves for path, leaves in params.items() if is_stacked(path)}
    return {path: leaves for path, leaves in params.items() if path not in stack}, stack


def _descend(
    gradient: Callable, params: Tree, optimizer: optax.GradientTransformation, steps: int
) -> Tree:
    """Returns the parameters after some steps on the same batch."""

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, steps, step, (params, optimizer.init(params)))[0]


def _mixed(before: Tree, after: Tree, chosen: jax.Array) -> Tree:
    """Moves the arrays of some kinds, `chosen` [kinds] being 1 or 0, from before to after."""
    return {
        path: {
            name: x + chosen[KINDS.index(kind(path, name))] * (after[path][name] - x)
            for name, x in leaves.items()
        }
        for path, leaves in before.items()
    }


def _size(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(x**2))
