"""Sentence head: the features of a text become one vector, those of a pair are compared."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.cross_attention import Plan
from perceiver.model.decoder import Decoder
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.layers import dot
from perceiver.nn.positions import LearnedTable

NAMES = ("embedding", "embedding_b", "embedding_c")


@dataclasses.dataclass(kw_only=True, eq=False)
class SentenceEmbedding(hk.Module):
    """Features -> an embedding of each text, and classes of a pair (Sentence-BERT, section 3).

    Features are latents, or those of each token, of which a mask tells the real ones. The texts of
    a pair or triplet come as examples beside each other, so that all meet the same weights, and
    stay on one device where a batch is split over several.
    """

    pooling: str  # one of specs.POOLINGS
    classes: int  # K of a pair; 0: none, and no weights for it
    channels: int  # E, of the query of "latent"
    heads: int
    qk_channels: int
    query_residual: bool = False
    activation: str = "gelu_tanh"  # of the query's MLP, one of layers.ACTIVATIONS
    compute: Compute = Compute()
    name: str | None = None

    def __call__(
        self,
        latents: jax.Array,  # [B * texts, N, D]
        *,
        texts: int = 1,
        latent_mask: jax.Array | None = None,  # bool [B * texts, N]
        is_training: bool = False,
    ) -> dict[str, jax.Array]:
        """Returns {"embedding": [B, E]}, "embedding_b" and "embedding_c" of further texts.

        "logits" [B, K] of a pair if the head has classes.
        """
        pooled = self._pool(latents, latent_mask, is_training=is_training)  # [B * texts, E]
        pooled = pooled.reshape(-1, texts, pooled.shape[-1])
        outputs = {name: pooled[:, i] for i, name in enumerate(NAMES[:texts])}
        if self.classes:
            w = self._pair_weights(pooled.shape[-1])  # made whatever is asked
            if texts == 2:
                u, v = outputs.values()
                compared = jnp.concatenate([u, v, jnp.abs(u - v)], axis=-1)  # [B, 3E]
                outputs["logits"] = dot(compared, w, self.compute.operands)
        return outputs

    @hk.name_like("__call__")
    def queries(self, latents, *, texts=1, latent_mask=None) -> dict[str, ByteArray]:
        """Returns the one query of "latent"; other poolings ask nothing."""
        del texts, latent_mask
        if self.pooling != "latent":
            return {}
        return {"embedding": ByteArray.of(Segment(self._query(latents), name="queries"))}

    @hk.name_like("__call__")
    def read(self, latents, queries, *, latent_mask=None, is_training=False) -> dict:
        """[B, N, D], {"embedding": o queries} -> {"embedding": [B, o, E]}."""
        if queries and self.pooling != "latent":
            raise ValueError(f"pooling {self.pooling!r} takes no queries, got {sorted(queries)}")
        decoder = self._decoder()
        return {
            name: decoder(x, latents, latent_mask=latent_mask, is_training=is_training)
            for name, x in queries.items()
        }

    @hk.name_like("__call__")
    def plans(self, latents, *, texts=1, latent_mask=None) -> dict[str, Plan]:
        """Returns which path the query takes; without one, no plan."""
        del texts, latent_mask
        if self.pooling != "latent":
            return {}
        return {"decoder": self._decoder().plan(self._query(latents), latents)}

    @hk.transparent
    def _pool(self, latents, mask, *, is_training) -> jax.Array:  # [T, N, D] -> [T, E]
        if self.pooling == "latent":
            query, options = self._query(latents), {"is_training": is_training}
            return self._decoder()(query, latents, latent_mask=mask, **options)[:, 0]
        return _POOL[self.pooling](latents, mask)

    @hk.transparent
    def _query(self, latents) -> jax.Array:  # [T, 1, E]
        table = LearnedTable(size=1, channels=self.channels, name="queries")()
        return jnp.broadcast_to(table.astype(latents.dtype), (len(latents), *table.shape))

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

    @hk.transparent
    def _pair_weights(self, channels: int) -> jax.Array:  # [3E, K], without bias
        with hk.name_scope("pair"):
            shape = [3 * channels, self.classes]
            init = hk.initializers.TruncatedNormal(shape[0] ** -0.5)
            return hk.get_parameter("w", shape, jnp.float32, init=init)


def _mean(x, mask):  # [T, N, D], bool [T, N] or None -> [T, D]; zeros where nothing is real
    if mask is None:
        return x.mean(axis=1)
    total = jnp.where(mask[..., None], x, 0).sum(axis=1)
    return total / jnp.maximum(mask.sum(axis=1), 1)[:, None].astype(x.dtype)


def _max(x, mask):  # the same shapes
    if mask is None:
        return x.max(axis=1)
    highest = jnp.where(mask[..., None], x, jnp.finfo(x.dtype).min).max(axis=1)
    return jnp.where(mask.any(axis=1)[:, None], highest, 0)


def _first(x, mask):
    del mask
    return x[:, 0]


_POOL = {"mean": _mean, "max": _max, "cls": _first}
