"""A model: pure functions made from a spec."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver import specs
from perceiver.builders import KINDS, Inputs
from perceiver.cross_attention import Plan, Sequence


@dataclasses.dataclass(frozen=True)
class Model:
    """Pure functions of one architecture. Inputs are a dict of arrays, see `example_inputs`."""

    spec: specs.Backbone
    _transformed: hk.MultiTransformedWithState

    def init(self, rng: jax.Array):
        """Returns (params, state), each `{module path: {name: array}}`; run it in `jax.jit`."""
        zeros = {k: jnp.zeros(x.shape, x.dtype) for k, x in self.example_inputs(1).items()}
        return self._transformed.init(rng, zeros)

    def apply(self, params, state, rng, inputs: Inputs, *, is_training: bool = False):
        """Returns (float32 outputs, new state). `rng` may be None where nothing is dropped.

        Raises:
          ValueError: inputs of the wrong rank, channels, length or dtype; token ids out of range
            (where they are known: not within `jax.jit`).
        """
        self.check(inputs)
        return self._transformed.apply[0](params, state, rng, inputs, is_training)

    def encode(self, params, state, inputs: Inputs) -> jax.Array:
        """Returns the latents [B, N, D] after the last stage."""
        self.check(inputs)
        return self._transformed.apply[1](params, state, None, inputs)[0]

    def attention_maps(self, params, state, inputs: Inputs) -> list[jax.Array]:
        """Returns what the latents attend to: for each cross-attend, weights [B, H, N, M]."""
        self.check(inputs)
        return self._transformed.apply[2](params, state, None, inputs)[0]

    def explain(self, batch_size: int = 1, *, is_training: bool = False) -> list[Plan]:
        """Returns which path the cross-attend of each stage takes and why; print them.

        Nothing is computed: paths depend on shapes, and on whether weights are dropped.
        """
        found = []

        def record(params, state, inputs):
            found.extend(self._transformed.apply[3](params, state, None, inputs, is_training)[0])

        params, state = jax.eval_shape(self.init, jax.random.key(0))
        jax.eval_shape(record, params, state, self.example_inputs(batch_size))
        return found

    def example_inputs(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes and dtypes of a batch of inputs."""
        return KINDS[self.spec.kind].example(self.spec, batch_size)

    def check(self, inputs: Inputs) -> None:
        """Raises ValueError unless `apply` can take the inputs."""
        missing = [name for name in self.example_inputs(1) if name not in inputs]
        if missing:
            raise ValueError(f"{self.spec.kind} needs inputs {missing}, got {sorted(inputs)}")
        KINDS[self.spec.kind].check(self.spec, inputs)


def build(spec: Mapping[str, Any] | specs.Backbone, *, sequence: Sequence | None = None) -> Model:
    """Builds a model from a spec, e.g. `build(released.MODELS["imagenet-fourier"])`.

    Args:
      spec: what the model is.
      sequence: a mesh axis over whose devices the byte array's elements are split.
    """
    spec = specs.parse(spec)
    dtype = jnp.dtype(spec.dtype)

    def make():
        parts = KINDS[spec.kind].parts(spec)

        def preprocess(inputs, is_training=False):
            cast = {
                k: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
                for k, x in ((k, inputs[k]) for k in KINDS[spec.kind].example(spec, 1))
            }
            byte_array = parts.preprocess(cast, is_training=is_training)
            if hk.running_init():  # on one example, which need not divide over anything
                return byte_array
            return dataclasses.replace(byte_array, sequence=sequence)

        def predict(inputs, is_training=False):
            byte_array = preprocess(inputs, is_training)
            outputs = parts.perceiver(
                byte_array, is_training=is_training, **parts.decode_options(inputs)
            )
            return outputs.astype(jnp.float32)

        def encode(inputs):
            return parts.perceiver.encode(preprocess(inputs))

        def attention_maps(inputs):
            return parts.perceiver.attention_maps(preprocess(inputs))

        def plans(inputs, is_training):
            return parts.perceiver.plans(preprocess(inputs, is_training), is_training=is_training)

        def init(inputs):
            # in training mode: batch norm has no averages to evaluate with yet
            return predict(inputs, is_training=True)

        return init, (predict, encode, attention_maps, plans)

    return Model(spec, hk.multi_transform_with_state(make))
