"""Token ids -> byte array: embedding plus learned positions, added; BERT's parts, where asked."""

import dataclasses
from collections.abc import Callable

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.layers import EPSILON, LayerNorm
from perceiver.nn.positions import LearnedTable


@dataclasses.dataclass(kw_only=True, eq=False)
class TextInputs(hk.Module):
    """Bytes or subwords (Perceiver IO, section 4.1).

    The embedding is passed in, because the output may share it.
    """

    embedding: Callable[[], jax.Array]  # -> [K, C]
    max_length: int
    position_scale: float = 0.02
    position_start: str = "normal"  # see `LearnedTable`
    token_types: int = 0  # rows of a table, one of which is added to each token; 0: none
    norm: bool = False  # of the sum
    epsilon: float = EPSILON  # of the norm
    name: str | None = None

    def __call__(
        self,
        tokens: jax.Array,
        mask: jax.Array | None = None,
        *,
        first: jax.Array | None = None,
        types: jax.Array | None = None,
    ) -> ByteArray:
        """[B, M] int, [B, M] bool (True = real) -> byte array of content, positions added.

        `first` [B, C] takes the place of the first token's embedding. `types` [B, M] int are rows
        of the table of token types; None: all are the first.
        """
        table = self.embedding()
        channels, scale = table.shape[1], self.position_scale
        positions = LearnedTable(
            size=self.max_length,
            channels=channels,
            scale=scale,
            start=self.position_start,
            name="positions",
        )()  # [max_length, C]
        content = jnp.take(table, tokens, axis=0)  # [B, M, C]
        if first is not None:
            content = content.at[:, 0].set(first)
        content = content + jnp.broadcast_to(positions[: tokens.shape[1]], content.shape)
        if self.token_types:
            content = content + self._types(types, content)
        if self.norm:
            content = LayerNorm(epsilon=self.epsilon, name="norm")(content)
        return ByteArray.of(Segment(content, mask=mask, name="text"))

    @hk.transparent
    def _types(self, types: jax.Array | None, content: jax.Array) -> jax.Array:  # -> [B, M, C]
        table = LearnedTable(
            size=self.token_types,
            channels=content.shape[-1],
            scale=self.position_scale,
            name="token_types",
        )()
        if types is None:
            return jnp.broadcast_to(table[0], content.shape)
        return jnp.take(table, types, axis=0)
