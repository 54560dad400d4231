"""Text classification head: a learned query, then a small MLP (or one layer), of each task."""

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
class TanhMLP(hk.Module):
    """Two layers with tanh in between, the hidden one as wide as the input."""

    classes: int
    name: str | None = None

    def __call__(self, x: jax.Array) -> jax.Array:  # [..., E] -> [..., K]
        hidden = jnp.tanh(Linear(channels=x.shape[-1], name="hidden")(x))
        return Linear(channels=self.classes, name="out")(hidden)


@dataclasses.dataclass(kw_only=True, eq=False)
class TextClasses(hk.Module):
    """Latents -> logits of all tasks side by side (Perceiver IO, section 4.1 and appendix F.4).

    The decoder has the paths and shapes of a masked language model's, so that a pre-trained one
    fits too.
    """

    tasks: tuple[tuple[str, int], ...]  # (name, classes); a single one has the name ""
    own_queries: bool  # False: one query for all tasks
    channels: int  # E, of a query
    heads: int
    qk_channels: int
    query_residual: bool = False
    linear: bool = False  # whether one layer takes the place of the MLP
    activation: str = "gelu_tanh"  # of the decoder's MLP, one of layers.ACTIVATIONS
    compute: Compute = Compute()
    name: str | None = None

    def __call__(
        self, latents: jax.Array, *, latent_mask=None, is_training: bool = False
    ) -> jax.Array:
        """[B, N, D], [B, N] (True = real) -> [B, K]."""
        table = self._table(latents)  # [B, Q, E]
        read = {"latent_mask": latent_mask, "is_training": is_training}
        x = self._decoder()(table, latents, **read)  # [B, Q, E]
        rows = [
            self._head(name, classes)(x[:, place * self.own_queries])
            for place, (name, classes) in enumerate(self.tasks)
        ]
        return jnp.concatenate(rows, axis=-1)

    @hk.name_like("__call__")
    def queries(self, latents: jax.Array, *, latent_mask=None) -> dict[str, ByteArray]:
        """Returns one query for each example and task."""
        del latent_mask
        table = self._table(latents)
        places = [place * self.own_queries for place in range(len(self.tasks))]
        return {
            name or "logits": ByteArray.of(Segment(table[:, i : i + 1], name="queries"))
            for i, (name, _) in zip(places, self.tasks, strict=True)
        }

    @hk.name_like("__call__")
    def read(
        self, latents: jax.Array, queries, *, latent_mask=None, is_training: bool = False
    ) -> dict:
        """[B, N, D], {task: o queries} -> {task: [B, o, its classes]}."""
        decoder, classes = self._decoder(), dict(self.tasks)
        heads = {name or "logits": self._head(name, count) for name, count in classes.items()}
        return {
            name: heads[name](decoder(x, latents, latent_mask=latent_mask, is_training=is_training))
            for name, x in queries.items()
        }

    @hk.name_like("__call__")
    def plans(self, latents: jax.Array, *, latent_mask=None) -> dict[str, Plan]:
        """Returns which path the decoder takes."""
        del latent_mask
        return {"decoder": self._decoder().plan(self._table(latents), latents)}

    @hk.transparent
    def _table(self, latents: jax.Array) -> jax.Array:  # [B, Q, E]
        size = len(self.tasks) if self.own_queries else 1
        table = LearnedTable(size=size, channels=self.channels, name="queries")()
        return jnp.broadcast_to(table.astype(latents.dtype), (len(latents), *table.shape))

    @hk.transparent
    def _head(self, task: str, classes: int) -> TanhMLP | Linear:
        name = f"head_{task}" if task else "head"
        return (
            Linear(channels=classes, name=name)
            if self.linear
            else TanhMLP(classes=classes, name=name)
        )

    @hk.transparent
    def _decoder(self) -> Decoder:
        return Decoder(
            heads=self.heads,
            qk_channels=self.qk_channels,
            v_channels=self.channels,
            query_residual=self.query_residual,
            activation=self.activation,
            compute=self.compute,
            name="decoder",
        )
