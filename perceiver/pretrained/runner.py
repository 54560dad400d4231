"""Compiled functions of a model and its weights, for batches of any size.

A batch is cut into pieces of at most `batch_size` examples, and the last piece is filled up to a
power of two by repeating its last example, so that few shapes are ever compiled.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from perceiver.kinds.models import Model
from perceiver.nn.byte_array import ByteArray


class Runner:
    """Runs a model's functions on the device; results are on the host."""

    def __init__(self, model: Model, params: Any, state: Any, batch_size: int):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model, self.params, self.state = model, params, state
        self.batch_size = batch_size
        # Weights are arguments: arrays that a function closes over become part of the program.
        self._apply = jax.jit(lambda *args: model.apply(args[0], args[1], None, args[2])[0])
        self._encode = jax.jit(model.encode)
        self._maps = jax.jit(model.attention_maps)
        self._decode = jax.jit(model.decode_queries)

    def apply(self, inputs: dict[str, Any]) -> Any:
        """Returns the model's outputs, float32."""
        return self.run(self._apply, inputs)

    def encode(self, inputs: dict[str, Any]) -> np.ndarray:
        """Returns the latents [B, N, D]."""
        return self.run(self._encode, inputs)

    def attention_maps(self, inputs: dict[str, Any]) -> list[np.ndarray]:
        """Returns one [B, H, N, M] for each cross-attend."""
        return self.run(self._maps, inputs)

    def latents(self, inputs: dict[str, Any]) -> jax.Array:
        """Returns the latents [B, N, D] of one batch as it is; they stay on the device."""
        self.model.check(inputs)
        return self._encode(self.params, self.state, inputs)

    def queries(self, latents: jax.Array) -> dict[str, ByteArray]:
        """Returns all output queries, of each modality."""
        return self.model.queries(self.params, self.state, latents, {})

    def decode(self, latents: jax.Array, queries: dict[str, ByteArray]) -> dict[str, jax.Array]:
        """Returns float32 rows [B, o, ...] for some queries; they stay on the device."""
        return self._decode(self.params, self.state, latents, queries)

    def run(self, function: Callable, inputs: dict[str, Any]) -> Any:
        """Returns `function(params, state, inputs)` for all examples, as host arrays.

        Raises:
          ValueError: there is no example, inputs differ in their number, or the model cannot take
            them.
        """
        sizes = {name: len(x) for name, x in inputs.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise ValueError(
                f"a batch needs at least one example, and the same number for all inputs: {sizes}"
            )
        self.model.check(inputs)
        pieces = []
        for start in range(0, next(iter(sizes.values())), self.batch_size):
            piece = {name: x[start : start + self.batch_size] for name, x in inputs.items()}
            real = len(next(iter(piece.values())))
            filled = {name: _fill(x, _bucket(real, self.batch_size)) for name, x in piece.items()}
            outputs = function(self.params, self.state, filled)
            pieces.append(jax.tree.map(lambda y, real=real: np.asarray(y)[:real], outputs))
        return jax.tree.map(lambda *ys: ys[0] if len(ys) == 1 else np.concatenate(ys), *pieces)


def _bucket(size: int, largest: int) -> int:
    """Returns the next power of two, at most `largest`."""
    return min(1 << (size - 1).bit_length(), largest)


def _fill(x: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(x)
    return np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x
