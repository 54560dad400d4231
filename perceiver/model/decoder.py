"""Decoder: output queries read the latents by one cross-attend (Perceiver IO, section 3.2)."""

import dataclasses
import logging

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.cross_attention import Plan, Sizes, Weights
from perceiver.cross_attention.queries import Affine, QueryWeights, decode, query_plan
from perceiver.model.cross_attend import CrossAttend
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.layers import FAN_IN, LayerNorm, Linear, dot

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True, eq=False)
class Decoder(hk.Module):
    """Queries [B, O, E] x latents [B, N, D] -> [B, O, out_channels], or [B, O, E] unprojected.

    Many queries are decoded some at a time, so that no array has the size of queries x latents.
    Queries that are a `ByteArray` of E channels (optical flow: the inputs themselves) are never
    concatenated then, and the structure of their positions is used. `plan` tells which path it is.
    """

    heads: int
    qk_channels: int | None = None  # None: as wide as the latents
    v_channels: int | None = None
    query_residual: bool = True
    out_channels: int | None = None  # None: no final projection
    out_init: hk.initializers.Initializer | None = None  # of that projection, see Linear
    widening: int = 1
    activation: str = "gelu_tanh"  # of the MLP, one of layers.ACTIVATIONS
    compute: Compute = Compute()
    name: str | None = None

    def __call__(
        self,
        queries: jax.Array | ByteArray,
        latents,
        *,
        query_mask=None,
        latent_mask=None,
        then: Affine | None = None,
        is_training=False,
    ) -> jax.Array:
        """Decodes all queries.

        Args:
          queries: [B, O, E], or a byte array of O elements.
          latents: [B, N, D].
          query_mask: [B, O]: a query with False reads nothing. None: a byte array's own mask.
          latent_mask: [B, N]: a latent with False is not read (where latents are the inputs, some
            of which are padding). All queries are then decoded at once.
          then: w [out_channels, K] and b [K] of one more linear layer, for outputs [B, O, K]. It is
            multiplied into the final projection, so [B, O, out_channels] is never formed.
          is_training: whether to drop out.
        """
        if then is not None and self.out_channels is None:
            raise ValueError(f"{self.module_name}: `then` needs a final projection, out_channels")
        queries = _as_byte_array(queries)
        query_mask = queries.mask if query_mask is None else query_mask
        if query_mask is not None and query_mask.shape != (queries.batch, queries.size):
            raise ValueError(
                f"{self.module_name}: query_mask {query_mask.shape} must be "
                f"{(queries.batch, queries.size)}, one bool for each query"
            )
        plan = self.plan(queries, latents)
        logger.info("%s: %s", self.module_name, plan)
        if plan.is_plain or latent_mask is not None:
            array = ByteArray.of(Segment(latents, mask=latent_mask, name="latents"))
            return self._at_once(queries, array, query_mask, then, is_training=is_training)
        weights = self._weights(queries.channels, latents.shape[-1], then)
        outputs, start = [], 0
        for segment, choice in zip(queries.segments, plan.choices, strict=True):
            stop = start + segment.size
            y = decode(
                segment,
                latents,
                weights,
                choice.path,
                heads=self.heads,
                residual=self.query_residual,
                activation=self.activation,
                query_mask=None if query_mask is None else query_mask[:, start:stop],
                compute=self.compute,
            )
            outputs.append(y)
            start = stop
        return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=1)

    @hk.name_like("__call__")
    def plan(self, queries: jax.Array | ByteArray, latents) -> Plan:
        """Returns which path such a call takes; makes no parameters and computes nothing."""
        queries = _as_byte_array(queries)
        qk_channels, v_channels = self._widths(latents.shape[-1])
        sizes = Sizes(
            queries=queries.size,
            heads=self.heads,
            qk_channels=qk_channels,
            v_channels=v_channels,
        )
        how = {"path": self.compute.path, "kernel": self.compute.kernel}
        return query_plan.choose(queries, latents.shape[1], sizes, **how)

    @hk.transparent
    def _widths(self, latent_channels: int) -> tuple[int, int]:
        return self.qk_channels or latent_channels, self.v_channels or latent_channels

    @hk.transparent
    def _at_once(self, queries: ByteArray, latents: ByteArray, query_mask, then, *, is_training):
        x = CrossAttend(
            heads=self.heads,
            qk_channels=self.qk_channels,
            v_channels=self.v_channels,
            widening=self.widening,
            activation=self.activation,
            query_residual=self.query_residual,
            compute=dataclasses.replace(self.compute, path="plain"),
            name="cross_attend",
        )(
            queries.dense(),
            latents,
            query_mask=query_mask,
            is_training=is_training,
        )
        if self.out_channels is None:
            return x
        w, b = self._final(x.shape[-1], then)
        y = dot(x, w, self.compute.operands)
        return y + jnp.broadcast_to(b.astype(x.dtype), y.shape)

    @hk.transparent
    def _final(self, channels: int, then: Affine | None) -> Affine:
        """Returns w and b of the final projection, with what follows multiplied in."""
        out = Linear(channels=self.out_channels, w_init=self.out_init, name="out")
        w, b = out.parameters(channels)
        if then is None:
            return w, b
        return dot(w, then[0], self.compute.operands), b @ then[0] + then[1]

    @hk.transparent
    def _weights(self, channels: int, latent_channels: int, then: Affine | None) -> QueryWeights:
        """Returns the parameters that `_at_once` makes, from the same paths in the same order."""
        qk_channels, v_channels = self._widths(latent_channels)

        def linear(fan_in, width, name):
            return Linear(channels=width, w_init=FAN_IN, name=name).parameters(fan_in)

        def norm(width, name):
            return LayerNorm(name=name).parameters(width)

        with hk.name_scope("cross_attend"):
            with hk.name_scope("attend"):
                of_queries = norm(channels, "norm")
                of_latents = norm(latent_channels, "norm_inputs")
                with hk.name_scope("attention"):
                    query = linear(channels, qk_channels, "query")
                    key = linear(latent_channels, qk_channels, "key")
                    value = linear(latent_channels, v_channels, "value")
                    out = linear(v_channels, channels, "out")
            with hk.name_scope("feed_forward"):
                of_mlp = norm(channels, "norm")
                with hk.name_scope("mlp"):
                    hidden = linear(channels, channels * self.widening, "hidden")
                    mlp_out = linear(channels * self.widening, channels, "out")
        final = None
        if self.out_channels is not None:
            final = self._final(channels, then)
        return QueryWeights(
            norm=of_queries,
            latents=Weights(*of_latents, *key, *value),
            query=query,
            out=out,
            mlp_norm=of_mlp,
            hidden=hidden,
            mlp_out=mlp_out,
            final=final,
        )


def _as_byte_array(queries: jax.Array | ByteArray) -> ByteArray:
    if isinstance(queries, ByteArray):
        return queries
    return ByteArray.of(Segment(queries, name="queries"))
