"""One fixed permutation of all inputs: what is left of a model that may not know the grid.

Perceiver, section 4.1 and table 2: the elements, content and position features together, are put
in an order that is drawn once. Attention to a set is blind to that; convolutions and patches are
not.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.nn.byte_array import Segment
from perceiver.nn.positions import Permuted

MAX_SEED = 2**32 - 1


def order(size: int, seed: int) -> np.ndarray:  # [M]
    """Returns which element comes at each place.

    Numpy promises that RandomState's stream never changes (NEP 19): a trained model means the same
    permutation for ever.
    """
    return np.random.RandomState(seed).permutation(size)


def permute(segment: Segment, seed: int) -> Segment:
    """Returns the segment with its elements in another order; seed 0 leaves it as it is.

    The shape of its grid is kept, though neighbours on it no longer are neighbours. Positions
    become a table that the batch shares.
    """
    if seed == 0:
        return segment
    where = jnp.asarray(order(segment.size, seed))
    batch, *dims, channels = segment.content.shape
    content = segment.content.reshape(batch, segment.size, channels)[:, where]
    positions = segment.positions
    if positions is not None:
        positions = Permuted(positions.dense()[where])
    return dataclasses.replace(
        segment, content=content.reshape(batch, *dims, channels), positions=positions
    )


def undo(weights: jax.Array, seed: int) -> jax.Array:  # [..., M] -> [..., M]
    """Sorts what was found for each permuted element by the elements as they were given."""
    if seed == 0:
        return weights
    return weights[..., np.argsort(order(weights.shape[-1], seed))]
