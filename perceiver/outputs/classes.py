"""Classification heads: the mean of the latents and a linear layer, or one learned query."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.compute import Compute
from perceiver.cross_attention import Plan
from perceiver.decoder import Decoder
from perceiver.layers import Linear
from perceiver.positions import LearnedTable


@dataclasses.dataclass(kw_only=True, eq=False)
class MeanClassifier(hk.Module):
    """Mean over the latents, then one linear layer that starts at zero (Perceiver, appendix C)."""

    classes: int
    name: str | None = None

    def __call__(self, latents: jax.Array, *, is_training: bool = False) -> jax.Array:
        """[B, N, D] -> [B, K]."""
        del is_training
        return Linear(channels=self.classes, w_init=jnp.zeros, name="logits")(latents.mean(axis=1))


@dataclasses.dataclass(kw_only=True, eq=False)
class QueryClassifier(hk.Module):
    """One learned query reads the latents, then one linear layer (Perceiver IO, appendix A)."""

    classes: int
    channels: int  # E, of the query
    heads: int
    query_residual: bool
    compute: Compute = Compute()
    name: str | None = None

    def __call__(self, latents: jax.Array, *, is_training: bool = False) -> jax.Array:
        """[B, N, D] -> [B, K]."""
        query = LearnedTable(size=1, channels=self.channels, name="queries")().astype(latents.dtype)
        queries = jnp.broadcast_to(query[None], (latents.shape[0], *query.shape))  # [B, 1, E]
        return self._decoder()(queries, latents, is_training=is_training)[:, 0]

    @hk.name_like("__call__")
    def plan(self, latents: jax.Array) -> Plan:
        """Returns which path the decoder takes."""
        queries = jax.ShapeDtypeStruct((latents.shape[0], 1, self.channels), latents.dtype)
        return self._decoder().plan(queries, latents)

    @hk.transparent
    def _decoder(self) -> Decoder:
        return Decoder(
            heads=self.heads,
            query_residual=self.query_residual,
            out_channels=self.classes,
            compute=self.compute,
            name="decoder",
        )
