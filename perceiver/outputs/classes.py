"""Classification heads: the mean of the latents and a linear layer, or one learned query."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.cross_attention import Plan
from perceiver.model.decoder import Decoder
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.layers import Linear
from perceiver.nn.positions import LearnedTable


@dataclasses.dataclass(kw_only=True, eq=False)
class MeanClassifier(hk.Module):
    """Mean over the latents, then one linear layer that starts at zero (Perceiver, appendix C)."""

    classes: int
    name: str | None = None

    def __call__(self, latents: jax.Array, *, is_training: bool = False) -> jax.Array:
        """[B, N, D] -> [B, K]."""
        del is_training
        return Linear(channels=self.classes, w_init=jnp.zeros, name="logits")(latents.mean(axis=1))

    @hk.name_like("__call__")
    def queries(self, latents: jax.Array) -> dict[str, ByteArray]:
        """Returns none: it asks nothing."""
        del latents
        return {}

    @hk.name_like("__call__")
    def read(self, latents: jax.Array, queries, *, is_training: bool = False) -> dict:
        """Returns no row for no query."""
        del latents, is_training
        if queries:
            raise ValueError(f"the mean of the latents takes no queries, got {sorted(queries)}")
        return {}

    @hk.name_like("__call__")
    def plans(self, latents: jax.Array) -> dict[str, Plan]:
        """Returns no plan: there is no decoder."""
        del latents
        return {}


@dataclasses.dataclass(kw_only=True, eq=False)
class TokenClassifier(MeanClassifier):
    """The first element, a class token, in place of the mean (Dosovitskiy et al., section 3.1)."""

    def __call__(self, latents: jax.Array, *, is_training: bool = False) -> jax.Array:
        """[B, N, D] -> [B, K]."""
        return super().__call__(latents[:, :1], is_training=is_training)


@dataclasses.dataclass(kw_only=True, eq=False)
class QueryClassifier(hk.Module):
    """One learned query reads the latents, then one linear layer (Perceiver IO, appendix A)."""

    classes: int
    channels: int  # E, of the query
    heads: int
    query_residual: bool
    activation: str = "gelu_tanh"  # of the decoder's MLP, one of layers.ACTIVATIONS
    compute: Compute = Compute()
    name: str | None = None

    def __call__(self, latents: jax.Array, *, is_training: bool = False) -> jax.Array:
        """[B, N, D] -> [B, K]."""
        return self.read(latents, self.queries(latents), is_training=is_training)["logits"][:, 0]

    @hk.name_like("__call__")
    def queries(self, latents: jax.Array) -> dict[str, ByteArray]:
        """Returns one query for each example."""
        query = LearnedTable(size=1, channels=self.channels, name="queries")().astype(latents.dtype)
        queries = jnp.broadcast_to(query[None], (latents.shape[0], *query.shape))  # [B, 1, E]
        return {"logits": ByteArray.of(Segment(queries, name="queries"))}

    @hk.name_like("__call__")
    def read(self, latents: jax.Array, queries, *, is_training: bool = False) -> dict:
        """[B, N, D], {"logits": o queries} -> {"logits": [B, o, K]}."""
        decoder = self._decoder()
        return {k: decoder(x, latents, is_training=is_training) for k, x in queries.items()}

    @hk.name_like("__call__")
    def plans(self, latents: jax.Array) -> dict[str, Plan]:
        """Returns which path the decoder takes."""
        return {"decoder": self._decoder().plan(self.queries(latents)["logits"], latents)}

    @hk.transparent
    def _decoder(self) -> Decoder:
        return Decoder(
            heads=self.heads,
            query_residual=self.query_residual,
            out_channels=self.classes,
            activation=self.activation,
            compute=self.compute,
            name="decoder",
        )
