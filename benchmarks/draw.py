"""Random arrays to measure with, always the same."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def params(shapes: Any) -> Any:
    """Draws parameters of given shapes, `{module path: {name: shape and dtype}}`.

    No bias is zero and no scale is one, as at the start of training they would be: then a form that
    forgets them would not show.
    """
    draw = np.random.default_rng(2)

    def leaf(name, shape):
        x = draw.standard_normal(shape, np.float32)
        if name in ("w", "table"):
            return jnp.asarray(x / math.sqrt(shape[-2]))
        return jnp.asarray(0.2 * x + (name == "scale"))

    return {
        path: {name: leaf(name, x.shape) for name, x in arrays.items()}
        for path, arrays in shapes.items()
    }


def batch(shapes: dict[str, jax.ShapeDtypeStruct], highest: int) -> dict[str, jax.Array]:
    """Draws a batch: normal numbers, integers below `highest`, masks without a gap."""
    draw = np.random.default_rng(4)

    def leaf(x):
        if x.dtype == jnp.bool_:
            return jnp.ones(x.shape, bool)
        if jnp.issubdtype(x.dtype, jnp.integer):
            return jnp.asarray(draw.integers(highest, size=x.shape), x.dtype)
        return jnp.asarray(draw.standard_normal(x.shape, np.float32))

    return {name: leaf(x) for name, x in shapes.items()}
