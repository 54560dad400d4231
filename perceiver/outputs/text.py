"""Text heads: logits by the transposed embedding, of a query for each position or of each token."""

import dataclasses
from collections.abc import Callable

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.cross_attention import Plan
from perceiver.model.decoder import Decoder
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.layers import ACTIVATIONS, EPSILON, LayerNorm, Linear
from perceiver.nn.positions import LearnedTable
from perceiver.nn.products import operand_dtype, product


@dataclasses.dataclass(kw_only=True, eq=False)
class TiedText(hk.Module):
    """Latents -> logits over the vocabulary at each of M positions (Perceiver IO, section 4.1)."""

    embedding: Callable[[], jax.Array]  # -> [K, E], shared with the input
    max_length: int
    heads: int
    qk_channels: int
    query_residual: bool = False
    query_start: str = "normal"  # see `LearnedTable`
    activation: str = "gelu_tanh"  # of the decoder's MLP, one of layers.ACTIVATIONS
    compute: Compute = Compute()
    name: str | None = None

    def __call__(
        self, latents, *, length: int, query_mask=None, latent_mask=None, is_training=False
    ) -> jax.Array:
        """[B, N, D], [B, M], [B, N] (True = real) -> [B, M, K]"""
        queries = self.queries(latents, length=length, query_mask=query_mask)
        read = {"latent_mask": latent_mask, "is_training": is_training}
        return self.read(latents, queries, **read)["logits"]

    @hk.name_like("__call__")
    def queries(
        self, latents, *, length: int, query_mask=None, latent_mask=None
    ) -> dict[str, ByteArray]:
        """Returns a query for each of the first `length` positions."""
        del latent_mask
        channels = self.embedding().shape[1]
        table = LearnedTable(
            size=self.max_length, channels=channels, start=self.query_start, name="queries"
        )()  # [M, E]
        queries = table[:length].astype(latents.dtype)
        queries = jnp.broadcast_to(queries, (latents.shape[0], *queries.shape))
        return {"logits": ByteArray.of(Segment(queries, mask=query_mask, name="queries"))}

    @hk.name_like("__call__")
    def read(
        self, latents, queries, *, latent_mask=None, is_training=False
    ) -> dict[str, jax.Array]:
        """[B, N, D], {"logits": o queries} -> {"logits": [B, o, K]}."""
        table = self.embedding().astype(latents.dtype)
        decoder = self._decoder(table.shape[1])
        bias = hk.get_parameter("b", [table.shape[0]], jnp.float32, init=jnp.zeros)

        def logits(queries):
            x = decoder(queries, latents, latent_mask=latent_mask, is_training=is_training)
            operands = operand_dtype(x, self.compute.operands)
            y = product("bme,ke->bmk", x, table, operands)  # float32
            return y + jnp.broadcast_to(bias, y.shape)

        return {name: logits(x) for name, x in queries.items()}

    @hk.name_like("__call__")
    def plans(self, latents, *, length: int, query_mask=None, latent_mask=None) -> dict[str, Plan]:
        """Returns which path the decoder takes."""
        del latent_mask
        queries = self.queries(latents, length=length, query_mask=query_mask)["logits"]
        return {"decoder": self._decoder(queries.channels).plan(queries, latents)}

    @hk.transparent
    def _decoder(self, channels: int) -> Decoder:
        return Decoder(
            heads=self.heads,
            qk_channels=self.qk_channels,
            v_channels=channels,
            query_residual=self.query_residual,
            activation=self.activation,
            compute=self.compute,
            name="decoder",
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class TiedTokens(hk.Module):
    """Features of each token -> logits over the vocabulary: there is nothing to query.

    With `transform`, BERT's head: linear, activation and norm come before the products.
    """

    embedding: Callable[[], jax.Array]  # -> [K, D], shared with the input
    transform: bool = False
    activation: str = "gelu_tanh"  # of the transform, one of layers.ACTIVATIONS
    epsilon: float = EPSILON  # of its norm
    compute: Compute = Compute()
    name: str | None = None

    def __call__(self, features: jax.Array, *, is_training: bool = False) -> jax.Array:
        """[B, M, D] -> [B, M, K]."""
        del is_training
        if self.transform:
            features = self._transformed(features)
        table = self.embedding().astype(features.dtype)
        bias = hk.get_parameter("b", [table.shape[0]], jnp.float32, init=jnp.zeros)
        operands = operand_dtype(features, self.compute.operands)
        y = product("bmd,kd->bmk", features, table, operands)  # float32
        return y + jnp.broadcast_to(bias, y.shape)

    @hk.transparent
    def _transformed(self, x: jax.Array) -> jax.Array:  # [B, M, D] -> [B, M, D]
        linear = Linear(channels=x.shape[-1], operands=self.compute.operands, name="transform")
        return LayerNorm(epsilon=self.epsilon, name="norm")(ACTIVATIONS[self.activation](linear(x)))

    @hk.name_like("__call__")
    def queries(self, features: jax.Array) -> dict[str, ByteArray]:
        """Returns none: it asks nothing."""
        del features
        return {}

    @hk.name_like("__call__")
    def read(self, features: jax.Array, queries, *, is_training: bool = False) -> dict:
        """Returns no row for no query."""
        del features, is_training
        if queries:
            raise ValueError(f"a head for all tokens takes no queries, got {sorted(queries)}")
        return {}

    @hk.name_like("__call__")
    def plans(self, features: jax.Array) -> dict[str, Plan]:
        """Returns no plan: there is no decoder."""
        del features
        return {}
