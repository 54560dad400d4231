"""SpecAugment: a stretch of time and a band of frequencies of a spectrogram are hidden.

Park et al. 2019 (1904.08779), section 2, without time warping: one mask of each kind. Widths are
uniform from 0 to the largest, places uniform among those that fit.
"""

import jax
import jax.numpy as jnp


def mask_spectrogram(
    key: jax.Array, spectrogram: jax.Array, *, time_width: int, bin_width: int
) -> jax.Array:
    """Returns the spectrogram [B, T, F], some of it replaced by its example's mean.

    Args:
      key: one draw for each example.
      spectrogram: [B, T, F].
      time_width: frames that a mask hides at most; 0: none.
      bin_width: bins that a mask hides at most; 0: none.
    """
    batch, frames, bins = spectrogram.shape
    of_time, of_bins = jax.random.split(key)
    hidden = _stretches(of_time, batch, frames, time_width)[:, :, None]
    hidden = hidden | _stretches(of_bins, batch, bins, bin_width)[:, None, :]
    mean = spectrogram.mean(axis=(1, 2), keepdims=True)
    return jnp.where(hidden, mean, spectrogram)


def _stretches(key: jax.Array, batch: int, size: int, widest: int) -> jax.Array:  # bool [B, size]
    of_width, of_start = jax.random.split(key)
    width = jax.random.randint(of_width, (batch, 1), 0, widest + 1)
    start = jax.random.randint(of_start, (batch, 1), 0, size - width + 1)
    place = jnp.arange(size)[None]
    return (start <= place) & (place < start + width)
