"""The blocks of a Perceiver: multi-head attention, MLP, self-attend and cross-attend."""

import dataclasses

import haiku as hk
import jax

from perceiver import attention
from perceiver.attention import reference
from perceiver.layers import FAN_IN, LayerNorm, Linear
from perceiver.residual import Residual


@dataclasses.dataclass(kw_only=True, eq=False)
class MultiHeadAttention(hk.Module):
    """Projects to H heads, attends, projects back (Perceiver, appendix C)."""

    heads: int
    qk_channels: int  # of all heads together
    v_channels: int  # of all heads together
    out_channels: int
    dropout_rate: float = 0.0  # on the attention weights
    kernel: str = "reference"  # a key of attention.KERNELS
    name: str | None = None

    def __call__(
        self, x_q, x_kv, *, key_mask=None, query_mask=None, is_training=False
    ) -> jax.Array:
        """[B, Q, D], [B, K, C] -> [B, Q, out_channels]; masks as in `perceiver.attention`."""
        q, k = self._query(x_q), self._key(x_kv)
        v = self._heads(x_kv, self.v_channels, "value")  # [B, K, H, V]
        rate = self.dropout_rate if is_training else 0.0
        attend = attention.kernel(self.kernel)
        dropout_key = hk.next_rng_key() if rate > 0 else None
        y = attend(
            q,
            k,
            v,
            key_mask=key_mask,
            query_mask=query_mask,
            dropout_rate=rate,
            dropout_key=dropout_key,
        )  # [B, Q, H, V]
        y = y.reshape(*y.shape[:2], self.v_channels)
        return Linear(channels=self.out_channels, w_init=FAN_IN, name="out")(y)

    @hk.name_like("__call__")
    def weights(self, x_q, x_kv, *, key_mask=None) -> jax.Array:
        """Returns the attention weights of such a call, float32 [B, H, Q, K]."""
        return reference.weights(self._query(x_q), self._key(x_kv), key_mask=key_mask)

    @hk.transparent
    def _query(self, x):
        return self._heads(x, self.qk_channels, "query")

    @hk.transparent
    def _key(self, x):
        return self._heads(x, self.qk_channels, "key")

    @hk.transparent
    def _heads(self, x, channels, name):  # [B, T, C] -> [B, T, H, channels / H]
        if channels % self.heads:
            raise ValueError(
                f"{self.module_name}/{name}: {channels} channels do not divide into "
                f"{self.heads} heads; choose a multiple of the number of heads"
            )
        y = Linear(channels=channels, w_init=FAN_IN, name=name)(x)
        return y.reshape(*y.shape[:2], self.heads, channels // self.heads)


@dataclasses.dataclass(kw_only=True, eq=False)
class MLP(hk.Module):
    """Linear, GELU (tanh form, as the released weights need), linear."""

    widening: int
    name: str | None = None

    def __call__(self, x: jax.Array) -> jax.Array:  # [..., C] -> [..., C]
        channels = x.shape[-1]
        y = Linear(channels=channels * self.widening, w_init=FAN_IN, name="hidden")(x)
        return Linear(channels=channels, w_init=FAN_IN, name="out")(
            jax.nn.gelu(y, approximate=True)
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class SelfAttend(hk.Module):
    """A Transformer layer: attend to oneself, then feed forward."""

    heads: int
    qk_channels: int
    v_channels: int
    widening: int = 1
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    kernel: str = "reference"
    name: str | None = None

    def __call__(
        self, x, *, mask=None, is_training=False
    ) -> jax.Array:  # [B, N, D], [B, N] -> [B, N, D]
        def attend(y):
            return MultiHeadAttention(
                heads=self.heads,
                qk_channels=self.qk_channels,
                v_channels=self.v_channels,
                out_channels=x.shape[-1],
                dropout_rate=self.attention_dropout_rate,
                kernel=self.kernel,
                name="attention",
            )(y, y, key_mask=mask, is_training=is_training)

        join = {"dropout_rate": self.dropout_rate}
        x = Residual(**join, name="attend")(x, attend, is_training=is_training)
        return Residual(**join, name="feed_forward")(
            x, lambda y: MLP(widening=self.widening, name="mlp")(y), is_training=is_training
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class CrossAttend(hk.Module):
    """Queries attend to inputs, then feed forward. Queries and inputs are normalised apart."""

    heads: int
    qk_channels: int | None = None  # None: as wide as the inputs (Perceiver, appendix C)
    v_channels: int | None = None  # None: as wide as the inputs
    widening: int = 1
    query_residual: bool = True
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    kernel: str = "reference"
    name: str | None = None

    def __call__(
        self, x, inputs, *, key_mask=None, query_mask=None, is_training=False
    ) -> jax.Array:
        """[B, N, D], [B, M, C], [B, M], [B, N] -> [B, N, D]"""
        masks = {"key_mask": key_mask, "query_mask": query_mask}

        def attend(y):
            normed = LayerNorm(name="norm_inputs")(inputs)
            return self._attention(x, inputs)(y, normed, **masks, is_training=is_training)

        join = Residual(skip=self.query_residual, dropout_rate=self.dropout_rate, name="attend")
        x = join(x, attend, is_training=is_training)
        return Residual(dropout_rate=self.dropout_rate, name="feed_forward")(
            x, lambda y: MLP(widening=self.widening, name="mlp")(y), is_training=is_training
        )

    @hk.name_like("__call__")
    def weights(self, x, inputs, *, key_mask=None) -> jax.Array:
        """Returns the attention weights of such a call, float32 [B, H, N, M]."""

        def attend(y):
            normed = LayerNorm(name="norm_inputs")(inputs)
            return self._attention(x, inputs).weights(y, normed, key_mask=key_mask)

        return Residual(skip=False, name="attend")(x, attend)

    @hk.transparent
    def _attention(self, x, inputs) -> MultiHeadAttention:
        return MultiHeadAttention(
            heads=self.heads,
            qk_channels=self.qk_channels or inputs.shape[-1],
            v_channels=self.v_channels or inputs.shape[-1],
            out_channels=x.shape[-1],
            dropout_rate=self.attention_dropout_rate,
            kernel=self.kernel,
            name="attention",
        )
