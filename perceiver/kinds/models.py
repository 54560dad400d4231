"""A model: pure functions made from a spec."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.cross_attention import Plan, Sequence
from perceiver.kinds import specs
from perceiver.kinds.builders import KINDS, Inputs
from perceiver.nn.byte_array import ByteArray


@dataclasses.dataclass(frozen=True)
class Model:
    """Pure functions of one architecture. Inputs are a dict of arrays, see `example_inputs`."""

    spec: specs.Spec
    _transformed: hk.MultiTransformedWithState = dataclasses.field(repr=False)

    def __reduce__(self):
        """Pickles the spec, of which the functions are made again."""
        return build, (self.spec.to_dict(),)

    def init(self, rng: jax.Array):
        """Returns (params, state), each `{module path: {name: array}}`; run it in `jax.jit`."""
        zeros = {k: jnp.zeros(x.shape, x.dtype) for k, x in self.example_inputs(1).items()}
        return self._transformed.init(rng, zeros)

    def apply(self, params, state, rng, inputs: Inputs, *, is_training: bool = False):
        """Returns (float32 outputs, new state). `rng` may be None where nothing is drawn.

        Outputs are an array, or a dict of arrays where a model has several: `perceiver.outputs`.

        Raises:
          ValueError: inputs of the wrong rank, channels, length or dtype; token ids out of range
            (where they are known: not within `jax.jit`).
        """
        self.check(inputs)
        return self._transformed.apply["predict"](params, state, rng, inputs, is_training)

    def encode(self, params, state, inputs: Inputs) -> jax.Array:
        """Returns the latents [B, N, D] after the last stage.

        Of a model without latents (a Transformer, image_resnet): the features that its head reads,
        of each element or of a smaller grid.
        """
        self.check(inputs)
        return self._transformed.apply["encode"](params, state, None, inputs)[0]

    def decode(self, params, state, latents: jax.Array, inputs: Inputs):
        """Returns what `apply` would, from latents that `encode` gave.

        Of the inputs, only those are needed which say what is asked for: none of an
        image_classifier; "input_mask" of a masked_lm; "frames" of an optical_flow model, whose
        queries they are; of a video_autoencoder, "video_queries" and "audio_queries" if not all is.
        """
        KINDS[self.spec.kind].check_queries(self.spec, inputs)
        return self._transformed.apply["decode"](params, state, None, latents, inputs)[0]

    def queries(self, params, state, latents: jax.Array, inputs: Inputs) -> dict[str, ByteArray]:
        """Returns the queries of such a `decode`, for who wants to decode them piece by piece.

        They are small, however many they are: positions of a grid stay factored. With
        `perceiver.decode_to_host`, a video of any length is decoded in little memory:

            latents = jax.jit(model.encode)(params, state, inputs)
            queries = model.queries(params, state, latents, {})["video"]
            decode = jax.jit(model.decode_queries)
            rows = decode_to_host(
                lambda piece: decode(params, state, latents, {"video": piece})["video"], queries
            )  # [B, T H W, C]
        """
        KINDS[self.spec.kind].check_queries(self.spec, inputs)
        return self._transformed.apply["queries"](params, state, None, latents, inputs)[0]

    def decode_queries(
        self, params, state, latents: jax.Array, queries: Mapping[str, ByteArray]
    ) -> dict[str, jax.Array]:
        """Returns float32 rows [B, o, ...], one for each of o queries, or a part, of `queries`.

        Raises:
          ValueError: a model of texts without latents, whose padding only `decode` knows.
        """
        if isinstance(self.spec, specs.MaskedLM) and not self.spec.has_latents:
            raise ValueError(
                f"{self.spec.kind} with body={self.spec.body!r} needs the mask of its inputs, "
                "which queries do not carry; use `decode`"
            )
        return self._transformed.apply["decode_queries"](params, state, None, latents, queries)[0]

    def attention_maps(self, params, state, inputs: Inputs) -> list[jax.Array]:
        """Returns what the latents attend to: for each cross-attend, weights [B, H, N, M].

        The M elements are in the order of the inputs as they were given, a permutation undone.
        A model without latents has no cross-attends, and so no maps: the list is empty.
        """
        self.check(inputs)
        return self._transformed.apply["attention_maps"](params, state, None, inputs)[0]

    def explain(self, batch_size: int = 1, *, is_training: bool = False) -> dict[str, Plan]:
        """Returns which path each cross-attend takes and why; print them.

        Nothing is computed: paths depend on shapes, and on whether weights are dropped.

        Returns:
          {"stage 1": plan, ..., "decoder": plan}; with several decoders, or calls of one,
          "decoder video" and so on; without one, the stages alone. Empty for a model without
          latents.
        """
        chosen = {}

        def record(params, state, inputs):
            rng = jax.random.key(0)  # of whatever training drops before attention
            plans = self._transformed.apply["plans"](params, state, rng, inputs, is_training)[0]
            chosen.update(plans)

        params, state = jax.eval_shape(self.init, jax.random.key(0))
        jax.eval_shape(record, params, state, self.example_inputs(batch_size))
        return chosen

    def example_inputs(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes and dtypes of a batch of inputs, without those that may be absent."""
        return KINDS[self.spec.kind].example(self.spec, batch_size)

    def check(self, inputs: Inputs) -> None:
        """Raises ValueError unless `apply` can take the inputs."""
        missing = [name for name in self.example_inputs(1) if name not in inputs]
        if missing:
            raise ValueError(f"{self.spec.kind} needs inputs {missing}, got {sorted(inputs)}")
        KINDS[self.spec.kind].check(self.spec, inputs)


def build(spec: Mapping[str, Any] | specs.Spec, *, sequence: Sequence | None = None) -> Model:
    """Builds a model from a spec, e.g. `build(released.MODELS["imagenet-fourier"])`.

    Args:
      spec: what the model is.
      sequence: a mesh axis over whose devices the byte array's elements are split, in `apply`,
        `encode` and `attention_maps`. Parameters and the spec do not depend on it.
    """
    spec = specs.parse(spec)
    if sequence is not None and not spec.has_latents:
        raise ValueError(
            f"{spec.kind} has no cross-attends, whose elements `sequence` would split; build it "
            "without `sequence` (in a config: mesh.sequence=1)"
        )
    dtype = jnp.dtype(spec.dtype)

    def make():
        parts = KINDS[spec.kind].parts(spec)
        names = (*KINDS[spec.kind].example(spec, 1), *KINDS[spec.kind].optional)
        exact = KINDS[spec.kind].exact

        def preprocess(inputs, is_training=False):
            given = {name: inputs[name] for name in names if inputs.get(name) is not None}
            cast = {
                k: x.astype(dtype)
                if jnp.issubdtype(x.dtype, jnp.floating) and k not in exact
                else x
                for k, x in given.items()
            }
            byte_array = parts.preprocess(cast, is_training=is_training)
            if hk.running_init():  # on one example, which need not divide over anything
                return byte_array
            return dataclasses.replace(byte_array, sequence=sequence)

        def predict(inputs, is_training=False):
            byte_array = preprocess(inputs, is_training)
            options = parts.options(inputs, lambda: byte_array)
            return _float32(parts.body(byte_array, is_training=is_training, **options))

        def encode(inputs):
            return parts.body.encode(preprocess(inputs))

        def attention_maps(inputs):
            return list(map(parts.as_given, parts.body.attention_maps(preprocess(inputs))))

        def plans(inputs, is_training):
            byte_array = preprocess(inputs, is_training)
            stages = parts.body.plans(byte_array, is_training=is_training)
            options = parts.options(inputs, lambda: byte_array)
            return stages | parts.head.plans(parts.body.initial(byte_array), **options)

        def decode(latents, inputs):
            options = parts.options(inputs, lambda: preprocess(inputs))
            return _float32(parts.head(latents.astype(dtype), **options))

        def queries(latents, inputs):
            options = parts.options(inputs, lambda: preprocess(inputs))
            return parts.head.queries(latents.astype(dtype), **options)

        def decode_queries(latents, queries):
            return _float32(parts.head.read(latents.astype(dtype), queries))

        def init(inputs):
            # in training mode: batch norm has no averages to evaluate with yet
            return predict(inputs, is_training=True)

        functions = {
            "predict": predict,
            "encode": encode,
            "attention_maps": attention_maps,
            "plans": plans,
            "decode": decode,
            "queries": queries,
            "decode_queries": decode_queries,
        }
        return init, functions

    return Model(spec, hk.multi_transform_with_state(make))


def _float32(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)
