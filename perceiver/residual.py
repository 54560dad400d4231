"""How a branch joins the stream, as one object, so that no block ever asks which."""

import dataclasses
from collections.abc import Callable

import haiku as hk
import jax

from perceiver.layers import LayerNorm, dropout


@dataclasses.dataclass(kw_only=True, eq=False)
class Residual(hk.Module):
    """x + f(norm(x)), or DeepNorm's norm(alpha x + f(x)) when alpha is given (DeepNet, section
    4.3).

    With `skip=False` the stream is dropped and f(norm(x)) is the result: a cross-attend "without
    query residual".
    """

    alpha: float | None = None  # None: pre-norm
    skip: bool = True
    dropout_rate: float = 0.0  # on the branch
    name: str | None = None

    def __call__(self, x: jax.Array, branch: Callable, *, is_training: bool = False) -> jax.Array:
        if self.alpha is not None and not self.skip:
            raise ValueError(f"alpha={self.alpha} weighs a stream that skip=False drops")
        norm = LayerNorm(name="norm")
        y = branch(norm(x) if self.alpha is None else x)
        y = dropout(y, self.dropout_rate, is_training=is_training)
        if self.alpha is not None:
            return norm(self.alpha * x + y)
        return x + y if self.skip else y
