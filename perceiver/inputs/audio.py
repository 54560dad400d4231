"""Sound -> one segment: patches of raw samples, one after the other."""

import jax

from perceiver.nn.byte_array import Segment
from perceiver.nn.positions import SeparableFourier


def audio_segment(
    audio: jax.Array,
    constant: jax.Array | None = None,
    *,
    samples_per_patch: int,
    bands: int,
    max_resolution: tuple[int, ...] | None,
) -> Segment:
    """Returns patches of samples with their Fourier positions (Perceiver IO, appendix I).

    Args:
      audio: [B, S] samples, usually in [-1, 1].
      constant: [P] features that all patches share.
      samples_per_patch: S is a multiple of it.
      bands: K, frequencies of the positions.
      max_resolution: of the one axis; None: the number of patches.
    """
    content = audio.reshape(audio.shape[0], -1, samples_per_patch)  # [B, S / s, s]
    grid = SeparableFourier.of_grid(content.shape[1:2], bands=bands, max_resolution=max_resolution)
    return Segment(content, grid, constant, name="audio")
