"""How a branch joins the stream, as one object, so that no block ever asks which.

  pre_norm   x + f(norm(x))              the Perceiver's, and ViT's
  post_norm  norm(x + f(x))              BERT's
  deepnorm   norm(alpha x + f(x))        DeepNet's (2203.00555), for stacks of up to 1,000 layers

DeepNorm also starts from smaller weights: Xavier's, times beta for values, attention outputs and
the feed-forward layers; queries and keys keep a gain of 1 (section 4.3, figure 2).

What this bounds, whatever the depth, is how far one update of those weights moves the output
(theorem 4.2). Two things are outside of it. What norms learn acts on the stream itself, whose
weight is 1, so that updates of all of them move the output in proportion to their number: with
`learned=False` there are none. And weights that are applied several times (a processor's blocks)
act, and are updated, each time.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax

from perceiver.nn.layers import EPSILON, FAN_IN, LayerNorm, dropout

RESIDUALS = ("pre_norm", "post_norm", "deepnorm")


class DeepNorm(NamedTuple):
    """The two constants of DeepNorm."""

    alpha: float  # weight of the stream in each sum
    beta: float  # gain of the initial weights


def deepnorm_encoder(layers: int) -> DeepNorm:
    """Returns the constants of an encoder-only stack of N layers (DeepNet, section 4.3)."""
    return DeepNorm(alpha=(2 * layers) ** 0.25, beta=(8 * layers) ** -0.25)


def deepnorm_decoder(layers: int) -> DeepNorm:
    """Returns those of a decoder-only stack of M layers, the same: both have two branches."""
    return deepnorm_encoder(layers)


def deepnorm_encoder_decoder(encoder_layers: int, decoder_layers: int) -> tuple[DeepNorm, DeepNorm]:
    """Returns those of an encoder of N layers, and of its decoder of M, with three branches each.

    The encoder's gain is the paper's 0.87 (section 4.3, appendix B); torchscale, which its authors
    maintain, starts from 1.15 in its place.
    """
    depth = (encoder_layers**4 * decoder_layers) ** (1 / 16)
    return (
        DeepNorm(alpha=0.81 * depth, beta=0.87 / depth),
        DeepNorm(alpha=(3 * decoder_layers) ** 0.25, beta=(12 * decoder_layers) ** -0.25),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidualConnection:
    """How the branches of a stack join its stream, and what their weights start from."""

    alpha: float | None = None  # None: pre-norm
    beta: float | None = None  # gain of Xavier's start; None: variance 1 / fan_in everywhere
    epsilon: float = EPSILON  # of the norms
    learned: bool = True  # whether the norms have parameters

    @property
    def qk_init(self) -> hk.initializers.Initializer:
        """What queries and keys start from."""
        return FAN_IN if self.beta is None else _xavier(1.0)

    @property
    def branch_init(self) -> hk.initializers.Initializer:
        """What values, attention outputs and feed-forward layers start from."""
        return FAN_IN if self.beta is None else _xavier(self.beta)


def residual_connection(
    residual: str, layers: int, epsilon: float = EPSILON, *, learned: bool = True
) -> ResidualConnection:
    """Returns the connection of a name in `RESIDUALS`, for a stack that applies `layers` layers."""
    if residual not in RESIDUALS:
        raise ValueError(f"unknown residual {residual!r}; choose one of {', '.join(RESIDUALS)}")
    if residual == "deepnorm":
        return ResidualConnection(
            epsilon=epsilon, learned=learned, **deepnorm_encoder(layers)._asdict()
        )
    alpha = 1.0 if residual == "post_norm" else None
    return ResidualConnection(alpha=alpha, epsilon=epsilon, learned=learned)


def _xavier(gain: float) -> hk.initializers.Initializer:
    return hk.initializers.VarianceScaling(gain**2, "fan_avg", "normal")


@dataclasses.dataclass(kw_only=True, eq=False)
class Residual(hk.Module):
    """x + f(norm(x)), or norm(alpha x + f(x)) when alpha is given.

    With `skip=False` the stream is dropped and f(norm(x)) is the result: a cross-attend "without
    query residual".
    """

    alpha: float | None = None  # None: pre-norm
    skip: bool = True
    dropout_rate: float = 0.0  # on the branch
    epsilon: float = EPSILON  # of the norm
    learned: bool = True  # whether the norm has parameters
    name: str | None = None

    def __call__(self, x: jax.Array, branch: Callable, *, is_training: bool = False) -> jax.Array:
        if self.alpha is not None and not self.skip:
            raise ValueError(
                f"alpha={self.alpha} scales the residual stream, which skip=False removes"
            )
        norm = LayerNorm(epsilon=self.epsilon, learned=self.learned, name="norm")
        y = branch(norm(x) if self.alpha is None else x)
        y = dropout(y, self.dropout_rate, is_training=is_training)
        if self.alpha is not None:
            return norm(self.alpha * x + y)
        return x + y if self.skip else y
