"""Encoder: latents take in the byte array by one cross-attend."""

import dataclasses

import haiku as hk
import jax

from perceiver.cross_attention import Plan
from perceiver.model.cross_attend import CrossAttend
from perceiver.nn.byte_array import ByteArray
from perceiver.nn.compute import Compute


@dataclasses.dataclass(kw_only=True, eq=False)
class Encoder(hk.Module):
    """One cross-attend from a byte array to latents (Perceiver, section 3.1).

    A classical Perceiver has several of them, with or without shared weights; the latents
    themselves therefore belong to the model, not to an encoder.
    """

    heads: int
    qk_channels: int | None = None  # None: as wide as the byte array
    v_channels: int | None = None
    widening: int = 1
    activation: str = "gelu_tanh"  # of the MLP, one of layers.ACTIVATIONS
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    compute: Compute = Compute()
    name: str | None = None

    def __call__(self, latents, byte_array: ByteArray, *, is_training=False) -> jax.Array:
        """[B, N, D] -> [B, N, D]"""
        return self._cross_attend()(latents, byte_array, is_training=is_training)

    @hk.name_like("__call__")
    def weights(self, latents, byte_array: ByteArray) -> jax.Array:
        """Returns what the latents attend to: float32 [B, H, N, M]."""
        return self._cross_attend().weights(latents, byte_array)

    @hk.name_like("__call__")
    def plan(self, latents, byte_array: ByteArray, *, is_training=False) -> Plan:
        """Returns which path such a call takes."""
        return self._cross_attend().plan(latents, byte_array, is_training=is_training)

    @hk.transparent
    def _cross_attend(self) -> CrossAttend:
        return CrossAttend(
            heads=self.heads,
            qk_channels=self.qk_channels,
            v_channels=self.v_channels,
            widening=self.widening,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            compute=self.compute,
            name="cross_attend",
        )
