"""Memory of a gradient through a deep stack, against its depth, for each choice of `remat`.

By the compiler's account, of what a program takes beside its arguments and results: parameters and
their gradients, which grow with the depth whatever is done, are apart. Nothing is computed.
"""

import dataclasses
from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from perceiver.processor import Processor
from perceiver.residual import join

DEPTHS = (64, 256, 1024, 4096)
BATCH, ELEMENTS, CHANNELS, HEADS = 16, 16, 32, 2  # as in configs/masked_lm.py:deepnet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """What the gradient of one stack takes."""

    remat: str
    layers: int
    temporary: int  # bytes
    parameters: int  # bytes


def measure(remat: str, layers: int) -> Memory:
    """Compiles the gradient of a DeepNorm stack."""
    sizes = {"layers": layers, "heads": HEADS, "remat": remat, "join": join("deepnorm", layers)}
    stack = hk.transform(lambda x: Processor(**sizes, name="processor")(x))
    x = jax.ShapeDtypeStruct((BATCH, ELEMENTS, CHANNELS), jnp.float32)
    params = jax.eval_shape(stack.init, jax.random.key(0), x)
    gradient = jax.grad(lambda params, x: stack.apply(params, None, x).sum())
    memory = jax.jit(gradient).lower(params, x).compile().memory_analysis()
    return Memory(
        remat=remat,
        layers=layers,
        temporary=memory.temp_size_in_bytes,
        parameters=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)),
    )


def exponent(rows: Sequence[Memory]) -> float:
    """Returns p of memory a + b L^p in the depth L, by least squares over the increments.

    The increment from each depth to the next is free of a, what a single layer takes at work. The
    depths must grow by the same factor.
    """
    depths = np.log([row.layers for row in rows])
    increments = np.diff([row.temporary for row in rows])
    return float(np.polyfit(depths[1:], np.log(increments), 1)[0])
