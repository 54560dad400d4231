"""Perceiver: byte array -> (cross-attend, process) once or several times -> decode."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from perceiver import cross_attention
from perceiver.cross_attention import Plan
from perceiver.model.encoder import Encoder
from perceiver.model.processor import Processor
from perceiver.nn.byte_array import ByteArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharing:
    """Which weights each stage uses. A stage is one cross-attend and one call of a processor.

    Stage k uses encoder `encoders[k]` and processor `processors[k]`; equal numbers share weights.
    What the papers ran, as their parameter counts decide
    (`tests/perceiver/summary/test_counts.py`):

      Sharing.io()           (0,)           (0,)           Perceiver IO: one cross-attend
      Sharing.classical(8)   (0, 1, 1, ..)  (0, 0, 0, ..)  Perceiver: the first cross-attend is its
                                                           own, all processors are one
      Sharing.unshared(8)    (0, 1, 2, ..)  (0, 1, 2, ..)  Perceiver, table 7
    """

    encoders: tuple[int, ...]
    processors: tuple[int, ...]

    def __post_init__(self):
        if len(self.encoders) != len(self.processors) or not self.encoders:
            raise ValueError(
                f"encoders={self.encoders} and processors={self.processors} need one entry per "
                "stage, the same number of both"
            )
        for name in ("encoders", "processors"):
            order = list(dict.fromkeys(getattr(self, name)))
            if order != list(range(len(order))):
                raise ValueError(
                    f"{name}={getattr(self, name)} must number weights 0, 1, ... in order of "
                    "their first use"
                )

    @classmethod
    def io(cls) -> "Sharing":
        return cls(encoders=(0,), processors=(0,))

    @classmethod
    def classical(cls, cross_attends: int) -> "Sharing":
        return cls(encoders=(0,) + (1,) * (cross_attends - 1), processors=(0,) * cross_attends)

    @classmethod
    def unshared(cls, cross_attends: int) -> "Sharing":
        return cls(encoders=tuple(range(cross_attends)), processors=tuple(range(cross_attends)))

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self.encoders, self.processors, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perceiver:
    """The composition. It owns no parameters: they belong to the modules, and are named by them."""

    latents: Callable[[], jax.Array]  # () -> [N, D]
    encoders: tuple[Encoder, ...]
    processors: tuple[Processor, ...]
    sharing: Sharing
    decode: Callable[..., Any]  # (latents [B, N, D], **options) -> outputs
    dtype: jnp.dtype = jnp.float32  # of all computation but softmax, norms and losses

    def __post_init__(self):
        for name in ("encoders", "processors"):
            needed = max(getattr(self.sharing, name)) + 1
            if len(getattr(self, name)) != needed:
                raise ValueError(
                    f"sharing.{name}={getattr(self.sharing, name)} needs {needed} {name}, "
                    f"got {len(getattr(self, name))}"
                )

    def __call__(
        self, byte_array: ByteArray, *, is_training: bool = False, **decode_options
    ) -> Any:
        latents = self.encode(byte_array, is_training=is_training)
        return self.decode(latents, is_training=is_training, **decode_options)

    def encode(
        self, byte_array: ByteArray, *, is_training: bool = False
    ) -> jax.Array:  # -> [B, N, D]
        """Runs all stages."""
        byte_array = cross_attention.prepare(byte_array)  # once for all stages
        latents = self.initial(byte_array)
        for encoder, processor in self.sharing.stages:
            latents = self.encoders[encoder](latents, byte_array, is_training=is_training)
            latents = self.processors[processor](latents, is_training=is_training)
        return latents

    def attention_maps(
        self, byte_array: ByteArray
    ) -> list[jax.Array]:  # one [B, H, N, M] per stage
        """Returns what the latents attend to in each cross-attend."""
        byte_array = cross_attention.prepare(byte_array)
        maps, latents = [], self.initial(byte_array)
        for encoder, processor in self.sharing.stages:
            maps.append(self.encoders[encoder].weights(latents, byte_array))
            latents = self.encoders[encoder](latents, byte_array)
            latents = self.processors[processor](latents)
        return maps

    def plans(self, byte_array: ByteArray, *, is_training: bool = False) -> dict[str, Plan]:
        """Returns which path each stage's cross-attend takes (see `perceiver.cross_attention`)."""
        latents = self.initial(byte_array)
        return {
            f"stage {stage}": self.encoders[i].plan(latents, byte_array, is_training=is_training)
            for stage, i in enumerate(self.sharing.encoders, start=1)
        }

    def initial(self, byte_array: ByteArray) -> jax.Array:  # [B, N, D]
        """Returns the latents before the first stage, one copy for each example."""
        latents = self.latents().astype(self.dtype)
        return jnp.broadcast_to(latents[None], (byte_array.batch, *latents.shape))
