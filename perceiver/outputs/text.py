"""Text head: a learned query for each position, logits by the transposed embedding."""

import dataclasses
from collections.abc import Callable

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.compute import Compute
from perceiver.decoder import Decoder
from perceiver.positions import LearnedTable
from perceiver.products import operand_dtype, product


@dataclasses.dataclass(kw_only=True, eq=False)
class TiedText(hk.Module):
    """Latents -> logits over the vocabulary at each of M positions (Perceiver IO, section 4.1)."""

    embedding: Callable[[], jax.Array]  # -> [K, E], shared with the input
    max_length: int
    heads: int
    qk_channels: int
    query_residual: bool = False
    compute: Compute = Compute()
    name: str | None = None

    def __call__(self, latents, *, length: int, query_mask=None, is_training=False) -> jax.Array:
        """[B, N, D], [B, M] -> [B, M, K]"""
        table = self.embedding().astype(latents.dtype)
        channels = table.shape[1]
        queries = LearnedTable(size=self.max_length, channels=channels, name="queries")()[
            :length
        ]  # [M, E]
        queries = jnp.broadcast_to(
            queries.astype(latents.dtype), (latents.shape[0], *queries.shape)
        )
        x = Decoder(
            heads=self.heads,
            qk_channels=self.qk_channels,
            v_channels=channels,
            query_residual=self.query_residual,
            compute=self.compute,
            name="decoder",
        )(queries, latents, query_mask=query_mask, is_training=is_training)
        bias = hk.get_parameter("b", [table.shape[0]], jnp.float32, init=jnp.zeros)
        operands = operand_dtype(x, self.compute.operands)
        logits = product("bme,ke->bmk", x, table, operands)  # float32
        return logits + jnp.broadcast_to(bias, logits.shape)
