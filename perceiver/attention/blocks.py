"""The blocks of the latent Transformer: multi-head attention, MLP, self-attend."""

import dataclasses

import haiku as hk
import jax

from perceiver import attention
from perceiver.attention.feature_stream import feature_key
from perceiver.nn.compute import Compute
from perceiver.nn.layers import ACTIVATIONS, FAN_IN, Linear
from perceiver.nn.residual import Residual, ResidualConnection


def check_heads(where: str, channels: int, heads: int) -> None:
    """Raises ValueError, naming the place, unless channels divide into heads."""
    if channels % heads:
        raise ValueError(
            f"{where}: {channels} channels are not divisible by {heads} heads; choose a multiple "
            "of the number of heads"
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class MultiHeadAttention(hk.Module):
    """Elements attend to each other: project to H heads, attend, project back."""

    heads: int
    qk_channels: int  # of all heads together
    v_channels: int  # of all heads together
    out_channels: int
    dropout_rate: float = 0.0  # on the attention weights
    qk_init: hk.initializers.Initializer = FAN_IN  # of queries and keys
    branch_init: hk.initializers.Initializer = FAN_IN  # of values and outputs
    compute: Compute = Compute()
    name: str | None = None

    def __call__(self, x, *, mask=None, is_training=False) -> jax.Array:
        """[B, N, D], [B, N] (True = real) -> [B, N, out_channels]"""
        rate = self.dropout_rate if is_training else 0.0
        key = feature_key(self.compute, self.module_name, is_training=is_training)
        attend = attention.kernel(
            self.compute.kernel, features=self.compute.features, feature_key=key
        )
        y = attend(
            self._heads(x, self.qk_channels, self.qk_init, "query"),
            self._heads(x, self.qk_channels, self.qk_init, "key"),
            self._heads(x, self.v_channels, self.branch_init, "value"),
            key_mask=mask,
            dropout_rate=rate,
            dropout_key=hk.next_rng_key() if rate > 0 else None,
            operands=self.compute.operands,
        )  # [B, N, H, V]
        y = y.reshape(*y.shape[:2], self.v_channels)
        return self._linear(self.out_channels, self.branch_init, "out")(y)

    @hk.transparent
    def _heads(self, x, channels, w_init, name):  # [B, N, D] -> [B, N, H, channels / H]
        check_heads(f"{self.module_name}/{name}", channels, self.heads)
        y = self._linear(channels, w_init, name)(x)
        return y.reshape(*y.shape[:2], self.heads, channels // self.heads)

    @hk.transparent
    def _linear(self, channels, w_init, name):
        operands = self.compute.operands
        return Linear(channels=channels, w_init=w_init, operands=operands, name=name)


@dataclasses.dataclass(kw_only=True, eq=False)
class MLP(hk.Module):
    """Linear, activation, linear."""

    widening: int
    activation: str = "gelu_tanh"  # one of layers.ACTIVATIONS
    w_init: hk.initializers.Initializer = FAN_IN
    compute: Compute = Compute()
    name: str | None = None

    def __call__(self, x: jax.Array) -> jax.Array:  # [..., C] -> [..., C]
        channels = x.shape[-1]
        kind = {"w_init": self.w_init, "operands": self.compute.operands}
        y = Linear(channels=channels * self.widening, name="hidden", **kind)(x)
        y = ACTIVATIONS[self.activation](y)
        return Linear(channels=channels, name="out", **kind)(y)


@dataclasses.dataclass(kw_only=True, eq=False)
class SelfAttend(hk.Module):
    """A Transformer layer: attend to oneself, then feed forward."""

    heads: int
    qk_channels: int
    v_channels: int
    widening: int = 1
    activation: str = "gelu_tanh"  # of the MLP, one of layers.ACTIVATIONS
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    residual: ResidualConnection = ResidualConnection()  # how both branches join the stream
    compute: Compute = Compute()
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
                qk_init=self.residual.qk_init,
                branch_init=self.residual.branch_init,
                compute=self.compute,
                name="attention",
            )(y, mask=mask, is_training=is_training)

        residual = {
            "alpha": self.residual.alpha,
            "epsilon": self.residual.epsilon,
            "learned": self.residual.learned,
            "dropout_rate": self.dropout_rate,
        }
        x = Residual(**residual, name="attend")(x, attend, is_training=is_training)

        def feed_forward(y):
            return MLP(
                widening=self.widening,
                activation=self.activation,
                w_init=self.residual.branch_init,
                compute=self.compute,
                name="mlp",
            )(y)

        return Residual(**residual, name="feed_forward")(x, feed_forward, is_training=is_training)
