"""Flow of images of any size: by overlapping tiles of the size that a model takes.

A model of optical flow sees little of what moves across its border, so tiles overlap, and where
they do, each counts by its distance from its own border (Perceiver IO, appendix H).
"""

from collections.abc import Callable

import numpy as np


def corners(size: int, tile: int, overlap: int) -> list[int]:
    """Returns where tiles start along one axis: as far apart as may be, the last one at the end.

    Args:
      size: of the axis, at least that of the tile.
      tile: elements of a tile.
      overlap: elements that neighbours share at least.

    Raises:
      ValueError: the tile is larger than the axis, or several do not fit with such an overlap.
    """
    if overlap < 0 or (overlap >= tile and size > tile):
        raise ValueError(f"overlap={overlap} must lie in [0, {tile}), less than the side of a tile")
    if size < tile:
        raise ValueError(f"an axis of {size} is shorter than a tile of {tile}; pad it")
    before_last = range(0, size - tile, tile - overlap) if size > tile else ()
    return [*before_last, size - tile]


def weights(tile: tuple[int, int]) -> np.ndarray:  # [h, w] float64
    """Returns how much each pixel of a tile counts: its distance from the nearest border."""
    rows, columns = (np.minimum(np.arange(n) + 1, n - np.arange(n)) for n in tile)
    return np.minimum(rows[:, None], columns[None]).astype(np.float64)


def tiled(
    apply: Callable[[np.ndarray], np.ndarray],
    frames: np.ndarray,
    *,
    tile: tuple[int, int],
    overlap: int = 20,
) -> np.ndarray:
    """Computes a flow tile by tile and returns the weighted mean where tiles overlap.

    Images smaller than a tile are continued beyond their border by its pixels.

    Args:
      apply: [B, 2, h, w, C] -> [B, h, w, K], for one tile of each example at a time; compiled, it
        is compiled once.
      frames: [B, 2, H, W, C].
      tile: h and w.
      overlap: pixels that neighbouring tiles share at least.

    Returns:
      [B, H, W, K] float32.

    Raises:
      ValueError: frames of another rank, or several tiles with an overlap as large as their side.
    """
    if frames.ndim != 5 or min(frames.shape) < 1:
        raise ValueError(f"frames must be [B, 2, H, W, C], got {frames.shape}")
    height, width = frames.shape[2:4]
    missing = [max(0, side - n) for side, n in zip(tile, (height, width), strict=True)]
    margins = [(0, 0), (0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)]
    frames = np.pad(frames, margins, mode="edge")
    batch, _, *sides, _ = frames.shape
    of_pixel = weights(tile)[..., None]  # [h, w, 1], float64: where one tile alone counts, exact
    total, count = None, np.zeros((*sides, 1))
    for top in corners(sides[0], tile[0], overlap):
        for left in corners(sides[1], tile[1], overlap):
            area = np.s_[top : top + tile[0], left : left + tile[1]]
            flow = np.asarray(apply(frames[:, :, area[0], area[1]]))
            if total is None:
                total = np.zeros((batch, *sides, flow.shape[-1]))
            total[:, *area] += flow * of_pixel
            count[area] += of_pixel
    (top, _), (left, _) = margins[2:4]
    mean = total / count
    return mean[:, top : top + height, left : left + width].astype(np.float32)
