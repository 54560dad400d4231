"""What stands in for a Perceiver in a model without latents: one network on all inputs.

It has what a `Perceiver` has, so the same preprocessors, heads, tasks and commands serve both.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from perceiver.cross_attention import Plan
from perceiver.nn.byte_array import ByteArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """The composition: byte array -> features -> decode. There are no latents to attend."""

    features: Callable[..., jax.Array]  # (byte array, *, is_training) -> [B, N, D]
    decode: Callable[..., Any]  # (features [B, N, D], **options) -> outputs

    def __call__(
        self, byte_array: ByteArray, *, is_training: bool = False, **decode_options
    ) -> Any:
        features = self.encode(byte_array, is_training=is_training)
        return self.decode(features, is_training=is_training, **decode_options)

    def encode(
        self, byte_array: ByteArray, *, is_training: bool = False
    ) -> jax.Array:  # -> [B, N, D]
        """Returns what the head reads: features of all elements, or of a smaller grid."""
        return self.features(byte_array, is_training=is_training)

    def attention_maps(self, byte_array: ByteArray) -> list[jax.Array]:
        """Returns none: no cross-attend reads the inputs."""
        del byte_array
        return []

    def plans(self, byte_array: ByteArray, *, is_training: bool = False) -> dict[str, Plan]:
        """Returns none, for the same reason."""
        del byte_array, is_training
        return {}

    def initial(self, byte_array: ByteArray) -> jax.Array:  # [B, N, D]
        """Returns an array of the shape of the features, for who asks about that alone."""
        return self.encode(byte_array)
