"""The random numbers of approximate attention kernels: a stream of their own.

In training they are drawn anew at each call, from the key that Haiku holds there (so another one in
each layer and step), without taking a key from Haiku: dropout masks do not depend on the kernel.
"""

import zlib

import haiku as hk
import jax

from perceiver.attention import APPROXIMATE
from perceiver.nn.compute import Compute


def feature_key(compute: Compute, module_name: str, *, is_training: bool) -> jax.Array | None:
    """Returns the key that a module's kernel draws features with; None for the fixed one.

    Raises:
      ValueError: features are to be redrawn, and there is no random key.
    """
    if compute.kernel not in APPROXIMATE or not (is_training and compute.redraw):
        return None
    state = hk.maybe_get_rng_sequence_state()
    if state is None:
        raise ValueError(
            f"{module_name}: kernel {compute.kernel!r} redraws its features in training and needs "
            "a random key; give `rng`, or set kernel_redraw=False"
        )
    tag = zlib.crc32(f"features of {module_name}".encode())
    return jax.random.fold_in(state[0], tag)
