"""Processor: a deep Transformer on the latents, compiled as one loop, never unrolled.

`layers` self-attends form a block; the block is applied `blocks` times with the same weights
(Perceiver IO ImageNet: 6 layers, 8 blocks). Parameters are stored stacked: every array below
`<name>/layers` has a leading axis of size `layers`.

What the backward pass keeps of each layer is chosen by name, here with temporary memory and CPU
time of a gradient, measured for Perceiver IO ImageNet (batch 2 and 1) on 2 CPU cores:

  dots    results of products with weights and of attention    1.7 GiB    1      the default
  layer   a layer's input only                                 0.5 GiB    1.2
  sqrt    the input of every sqrt(L)-th of L layers            not measured; for deep stacks
  none    whatever the derivative uses                         5.4 GiB    1.1

Forming norms, softmax and GELU anew takes less time than moving them through memory.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.attention import recompute
from perceiver.attention.blocks import SelfAttend
from perceiver.nn.compute import Compute
from perceiver.nn.products import differentiates_forward
from perceiver.nn.residual import ResidualConnection

STACK = "layers"  # the path component that marks parameters with a leading layer axis

_POLICIES = {
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(*recompute.SAVED),
    ),
    "layer": jax.checkpoint_policies.nothing_saveable,
    "sqrt": jax.checkpoint_policies.nothing_saveable,
    "none": jax.checkpoint_policies.everything_saveable,
}
REMAT = tuple(_POLICIES)  # the default first


def is_stacked(module_path: str) -> bool:
    """Whether the parameters of a module have a leading layer axis."""
    return STACK in module_path.split("/")


@dataclasses.dataclass(kw_only=True, eq=False)
class Processor(hk.Module):
    """Latents [B, N, D] -> latents [B, N, D]."""

    layers: int
    heads: int
    blocks: int = 1
    qk_channels: int | None = None  # None: as wide as the latents
    v_channels: int | None = None
    widening: int = 1
    activation: str = "gelu_tanh"  # of the MLP, one of layers.ACTIVATIONS
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    residual: ResidualConnection = ResidualConnection()  # how branches join the stream
    compute: Compute = Compute()
    remat: str = REMAT[0]  # what the backward pass keeps: one of REMAT, see above
    name: str | None = None

    def __call__(self, latents, *, mask=None, is_training=False) -> jax.Array:
        """[B, N, D] -> [B, N, D]; `mask` [B, N] hides elements (when latents are the inputs)."""
        if self.remat not in REMAT:
            raise ValueError(f"unknown remat {self.remat!r}; known: {', '.join(REMAT)}")
        layer = hk.transform(lambda x: self._layer(x, mask, is_training))
        weights = self._stacked(layer.init, latents)
        keys = self._keys()
        if self.blocks == 1 and self.remat != "sqrt":
            apply = self._checkpointed(layer.apply)
            return self._loop(lambda x, w: apply(*w, x), latents, (weights, keys))

        # Groups of layers are picked by their numbers: cut out of the stack, they would be copies.
        values = jax.lax.stop_gradient(weights)  # the gradient goes by way of `pick`

        @self._checkpointed
        def apply(carry, index, key):
            x, weights = carry
            own, weights = pick(values, weights, index)
            return layer.apply(own, key, x), weights

        order = jnp.tile(jnp.arange(self.layers), self.blocks)
        steps = (order, keys)
        return self._loop(lambda carry, step: apply(carry, *step), (latents, weights), steps)[0]

    @hk.transparent
    def _layer(self, x, mask, is_training):
        return SelfAttend(
            heads=self.heads,
            qk_channels=self.qk_channels or x.shape[-1],
            v_channels=self.v_channels or x.shape[-1],
            widening=self.widening,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            residual=self.residual,
            compute=self.compute,
            name="self_attend",
        )(x, mask=mask, is_training=is_training)

    @hk.transparent
    def _stacked(self, init, latents):
        """Returns the parameters of all layers, {path below STACK: {name: [layers, ...]}}."""

        def init_all(key):
            keys = jax.random.split(key, self.layers)
            return jax.vmap(init, in_axes=(0, None))(keys, latents)

        key = hk.next_rng_key() if hk.running_init() else None
        return hk.lift(init_all, name=STACK, allow_reuse=True)(key)

    @hk.transparent
    def _keys(self):
        """Returns a random key for each layer of each block, or None where there is none."""
        key = hk.maybe_next_rng_key()
        return None if key is None else jax.random.split(key, self.layers * self.blocks)

    @hk.transparent
    def _loop(self, step: Callable, carry, steps):
        """Returns the carry after all layers of all blocks."""
        if self.remat != "sqrt":
            return _scan(step, carry, steps)
        return _scan_in_groups(step, carry, steps, math.isqrt(self.layers * self.blocks))

    def _checkpointed(self, function):
        # a loop keeps forward and backward pass apart: nothing to protect from elimination
        return jax.checkpoint(function, policy=_POLICIES[self.remat], prevent_cse=False)


def _scan(step: Callable, carry: Any, steps: Any) -> Any:
    return jax.lax.scan(lambda carry, x: (step(carry, x), None), carry, steps)[0]


def _scan_in_groups(step: Callable, carry: Any, steps: Any, size: int) -> Any:
    """Scans groups of `size` steps, of which the backward pass keeps the first carry only.

    The carries within a group are made anew when its turn comes, so that with groups of sqrt(L) no
    more than about 2 sqrt(L) carries are in memory at a time (Chen et al. 2016, section 4.1).
    """
    total = jax.tree.leaves(steps)[0].shape[0]
    grouped = total - total % size

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def group(carry, steps):
        return _scan(step, carry, steps)

    groups = jax.tree.map(lambda x: x[:grouped].reshape(-1, size, *x.shape[1:]), steps)
    carry = _scan(group, carry, groups)
    return _scan(step, carry, jax.tree.map(lambda x: x[grouped:], steps))


def pick(values, weights, index):
    """Returns (a layer's values, weights), so that the layer's gradient adds to that of `weights`.

    Were the layer indexed plainly, each step of the loop would make a gradient of all layers, zero
    but for one, and add it to the sum. Here `weights` are handed from step to step, and their
    cotangent is the sum, to one layer of which a step adds in place.

    Args:
      values: of all layers, {path: {name: [layers, ...]}}; without a gradient.
      weights: the same, from the step before; for their gradient only.
      index: of the layer.
    """
    if differentiates_forward():
        return jax.tree.map(lambda x: _at(x, index), weights), weights
    return _pick_with_sum(values, weights, index)


@jax.custom_vjp
def _pick_with_sum(values, weights, index):
    return _pick(values, weights, index)[0]


def _pick(values, weights, index):
    return (jax.tree.map(lambda x: _at(x, index), values), weights), index


def _add(index, cotangents):
    own, total = jax.tree.map(_once, cotangents)

    def add(x, d):
        return jax.lax.dynamic_update_index_in_dim(x, _at(x, index) + d, index, axis=0)

    return None, jax.tree.map(add, total, own), None


@jax.custom_jvp
def _once(x):
    """Returns x, which may not be differentiated: it is part of a derivative."""
    return x


@_once.defjvp
def _refuse(primals, tangents):
    raise TypeError(
        "second derivatives of a processor that applies its block several times, or with "
        "remat='sqrt', need `with perceiver.forward_mode():`"
    )


def _at(x, index):
    return jax.lax.dynamic_index_in_dim(x, index, keepdims=False)


_pick_with_sum.defvjp(_pick, _add)
