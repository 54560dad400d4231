"""Decoder: output queries read the latents by one cross-attend (Perceiver IO, section 3.2)."""

import dataclasses

import haiku as hk
import jax

from perceiver.blocks import CrossAttend
from perceiver.layers import Linear


@dataclasses.dataclass(kw_only=True, eq=False)
class Decoder(hk.Module):
    """Queries [B, O, E] x latents [B, N, D] -> [B, O, out_channels], or [B, O, E] unprojected."""

    heads: int
    qk_channels: int | None = None  # None: as wide as the latents
    v_channels: int | None = None
    query_residual: bool = True
    out_channels: int | None = None  # None: no final projection
    widening: int = 1
    kernel: str = "reference"
    name: str | None = None

    def __call__(self, queries, latents, *, query_mask=None, is_training=False) -> jax.Array:
        """`query_mask` [B, O]: the attention output of a query with False is zero."""
        x = CrossAttend(
            heads=self.heads,
            qk_channels=self.qk_channels,
            v_channels=self.v_channels,
            widening=self.widening,
            query_residual=self.query_residual,
            kernel=self.kernel,
            name="cross_attend",
        )(queries, latents, query_mask=query_mask, is_training=is_training)
        if self.out_channels is None:
            return x
        return Linear(channels=self.out_channels, name="out")(x)
