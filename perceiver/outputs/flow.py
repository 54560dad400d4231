"""Flow head: the inputs themselves are the queries."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.cross_attention import Plan
from perceiver.model.decoder import Decoder
from perceiver.nn.byte_array import ByteArray
from perceiver.nn.compute import Compute


@dataclasses.dataclass(kw_only=True, eq=False)
class FlowHead(hk.Module):
    """Latents, and the byte array of the frames -> two numbers a pixel (Perceiver IO, section 4.2).

    The last layer starts at zero, and so does the flow.
    """

    heads: int
    qk_channels: int | None  # None: as wide as the latents
    v_channels: int | None
    query_residual: bool
    scale: float  # of the output
    activation: str = "gelu_tanh"  # of the decoder's MLP, one of layers.ACTIVATIONS
    compute: Compute = Compute()
    name: str | None = None

    def __call__(self, latents, *, pixels: ByteArray, is_training=False) -> jax.Array:
        """[B, N, D], a grid of H x W elements -> [B, H, W, 2]"""
        rows = self.read(latents, {"flow": pixels}, is_training=is_training)["flow"]
        return rows.reshape(latents.shape[0], *pixels.segments[0].dims, 2)

    @hk.name_like("__call__")
    def queries(self, latents, *, pixels: ByteArray) -> dict[str, ByteArray]:
        """Returns the inputs."""
        del latents
        return {"flow": pixels}

    @hk.name_like("__call__")
    def read(self, latents, queries, *, is_training=False) -> dict[str, jax.Array]:
        """[B, N, D], {"flow": o queries} -> {"flow": [B, o, 2]}."""
        decoder = self._decoder()
        return {
            name: decoder(x, latents, is_training=is_training) * self.scale
            for name, x in queries.items()
        }

    @hk.name_like("__call__")
    def plans(self, latents, *, pixels: ByteArray) -> dict[str, Plan]:
        """Returns which path the decoder takes."""
        return {"decoder": self._decoder().plan(pixels, latents)}

    @hk.transparent
    def _decoder(self) -> Decoder:
        return Decoder(
            heads=self.heads,
            qk_channels=self.qk_channels,
            v_channels=self.v_channels,
            query_residual=self.query_residual,
            out_channels=2,
            out_init=jnp.zeros,
            activation=self.activation,
            compute=self.compute,
            name="decoder",
        )
