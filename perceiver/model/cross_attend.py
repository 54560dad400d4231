"""CrossAttend: queries read a byte array. The block of every encoder and decoder."""

import dataclasses
import logging

import haiku as hk
import jax

from perceiver import cross_attention
from perceiver.attention.blocks import MLP, check_heads
from perceiver.attention.feature_stream import feature_key
from perceiver.cross_attention import Plan, Sizes, Weights
from perceiver.nn.byte_array import ByteArray
from perceiver.nn.compute import Compute
from perceiver.nn.layers import FAN_IN, LayerNorm, Linear
from perceiver.nn.residual import Residual

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True, eq=False)
class CrossAttend(hk.Module):
    """Queries attend to inputs, then feed forward. Queries and inputs are normalised apart."""

    heads: int
    qk_channels: int | None = None  # None: as wide as the inputs (Perceiver, appendix C)
    v_channels: int | None = None  # None: as wide as the inputs
    widening: int = 1
    activation: str = "gelu_tanh"  # of the MLP, one of layers.ACTIVATIONS
    query_residual: bool = True
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    compute: Compute = Compute()
    name: str | None = None

    def __call__(
        self, x, byte_array: ByteArray, *, query_mask=None, is_training=False
    ) -> jax.Array:
        """[B, N, D], M inputs of C channels, [B, N] -> [B, N, D]"""

        def attend(y):
            return self._attention(x, byte_array)(
                y, byte_array, self._norm(byte_array), query_mask, is_training=is_training
            )

        def feed_forward(y):
            mlp = {"widening": self.widening, "activation": self.activation}
            return MLP(**mlp, compute=self.compute, name="mlp")(y)

        residual = Residual(skip=self.query_residual, dropout_rate=self.dropout_rate, name="attend")
        x = residual(x, attend, is_training=is_training)
        return Residual(dropout_rate=self.dropout_rate, name="feed_forward")(
            x, feed_forward, is_training=is_training
        )

    @hk.name_like("__call__")
    def weights(self, x, byte_array: ByteArray) -> jax.Array:
        """Returns the attention weights of such a call, float32 [B, H, N, M]."""

        def attend(y):
            return self._attention(x, byte_array).weights(y, byte_array, self._norm(byte_array))

        return Residual(skip=False, name="attend")(x, attend)

    @hk.name_like("__call__")
    def plan(self, x, byte_array: ByteArray, *, is_training=False) -> Plan:
        """Returns which path such a call takes; makes no parameters and computes nothing."""
        return self._attention(x, byte_array).plan(x, byte_array, is_training=is_training)

    @hk.transparent
    def _norm(self, byte_array):
        return LayerNorm(name="norm_inputs").parameters(byte_array.channels)

    @hk.transparent
    def _attention(self, x, byte_array) -> "CrossAttention":
        return CrossAttention(
            heads=self.heads,
            qk_channels=self.qk_channels or byte_array.channels,
            v_channels=self.v_channels or byte_array.channels,
            out_channels=x.shape[-1],
            dropout_rate=self.attention_dropout_rate,
            compute=self.compute,
            name="attention",
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class CrossAttention(hk.Module):
    """Multi-head attention of normalised queries to a byte array that is normalised here."""

    heads: int
    qk_channels: int  # of all heads together
    v_channels: int  # of all heads together
    out_channels: int
    dropout_rate: float  # on the attention weights
    compute: Compute
    name: str | None = None

    def __call__(self, x, byte_array: ByteArray, norm, query_mask, *, is_training) -> jax.Array:
        """[B, N, D], M inputs, (scale [C], offset [C]), [B, N] or None -> [B, N, out_channels]"""
        plan = self.plan(x, byte_array, is_training=is_training)
        logger.info("%s: %s", self.module_name, plan)
        rate = self.dropout_rate if is_training else 0.0
        y = cross_attention.attend(
            self._query(x),
            byte_array,
            self._weights(byte_array, norm),
            plan,
            compute=self.compute,
            query_mask=query_mask,
            dropout_rate=rate,
            dropout_key=hk.next_rng_key() if rate > 0 else None,
            feature_key=feature_key(self.compute, self.module_name, is_training=is_training),
        )  # [B, N, H, v]
        y = y.reshape(*y.shape[:2], self.v_channels)
        return self._linear(self.out_channels, "out")(y)

    @hk.name_like("__call__")
    def weights(self, x, byte_array: ByteArray, norm) -> jax.Array:
        """Returns the attention weights, float32 [B, H, N, M]: a softmax's, whatever the kernel."""
        weights = self._weights(byte_array, norm)
        return cross_attention.attention_weights(self._query(x), byte_array, weights)

    @hk.name_like("__call__")
    def plan(self, x, byte_array: ByteArray, *, is_training=False) -> Plan:
        """Returns which path a call takes."""
        sizes = Sizes(
            queries=x.shape[1],
            heads=self.heads,
            qk_channels=self.qk_channels,
            v_channels=self.v_channels,
        )
        drops = is_training and self.dropout_rate > 0
        how = {"path": self.compute.path, "kernel": self.compute.kernel}
        return cross_attention.choose(byte_array, sizes, drops=drops, **how)

    @hk.transparent
    def _query(self, x):  # [B, N, D] -> [B, N, H, c]
        check_heads(f"{self.module_name}/query", self.qk_channels, self.heads)
        check_heads(f"{self.module_name}/value", self.v_channels, self.heads)
        y = self._linear(self.qk_channels, "query")(x)
        return y.reshape(*y.shape[:2], self.heads, -1)

    @hk.transparent
    def _weights(self, byte_array, norm) -> Weights:
        key = self._linear(self.qk_channels, "key").parameters(byte_array.channels)
        value = self._linear(self.v_channels, "value").parameters(byte_array.channels)
        return Weights(*norm, *key, *value)

    @hk.transparent
    def _linear(self, channels, name):
        operands = self.compute.operands
        return Linear(channels=channels, w_init=FAN_IN, operands=operands, name=name)
