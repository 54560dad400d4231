"""Optical flow as a picture: the direction is the hue, the length the saturation.

The colours are those of the Middlebury benchmark (Baker et al., "A database and evaluation
methodology for optical flow", 2011): a wheel of 55 hues, with more of them where the eye tells more
apart. Right is red, down is yellow, left is cyan, up is blue-violet.
"""

import numpy as np

# From one colour to the next, and in how many steps.
_WHEEL = (
    ((255, 0, 0), 15),  # red to yellow
    ((255, 255, 0), 6),  # to green
    ((0, 255, 0), 4),  # to cyan
    ((0, 255, 255), 11),  # to blue
    ((0, 0, 255), 13),  # to magenta
    ((255, 0, 255), 6),  # back to red
)
UNKNOWN = 1e9  # lengths beyond stand for flow that is not known
_BEYOND = 0.75  # brightness of flow longer than the longest


def color_wheel() -> np.ndarray:  # [55, 3] in [0, 1]
    """Returns the hues, beginning with red."""
    arcs = []
    for i, (color, steps) in enumerate(_WHEEL):
        start, end = np.array(color), np.array(_WHEEL[(i + 1) % len(_WHEEL)][0])
        rise = np.floor(255 * np.arange(steps) / steps)[:, None] / 255
        arcs.append(start[None] + (end - start)[None] * rise)
    return np.concatenate(arcs) / 255


def flow_picture(flow: np.ndarray, *, max_flow: float | None = None) -> np.ndarray:
    """Returns a picture of a flow.

    Args:
      flow: [H, W, 2], to the right and down. Pixels that are not finite, or longer than `UNKNOWN`,
        are drawn black.
      max_flow: the length of full saturation, for pictures that are to be compared. Longer flow is
        darker. None: the longest of this flow.

    Returns:
      [H, W, 3] uint8.

    Raises:
      ValueError: flow of another shape, or a length that is not positive.
    """
    flow = np.asarray(flow, np.float64)
    if flow.ndim != 3 or flow.shape[-1] != 2:
        raise ValueError(f"flow must be [H, W, 2], got {flow.shape}; draw one example at a time")
    if max_flow is not None and not max_flow > 0:
        raise ValueError(
            f"max_flow={max_flow} must be positive; None means the largest motion in the flow"
        )
    known = np.isfinite(flow).all(axis=-1) & (np.abs(flow) <= UNKNOWN).all(axis=-1)
    flow = np.where(known[..., None], flow, 0.0)
    length = np.hypot(flow[..., 0], flow[..., 1])
    length = length / (max_flow or length.max(initial=0.0) or 1.0)
    color = _hues(np.arctan2(flow[..., 1], flow[..., 0]))
    saturated = 1 - np.minimum(length, 1)[..., None] * (1 - color)
    color = np.where(length[..., None] <= 1, saturated, _BEYOND * color)
    return np.floor(255 * np.where(known[..., None], color, 0)).astype(np.uint8)


def _hues(angle: np.ndarray) -> np.ndarray:  # [...] in [-pi, pi], 0 is right -> [..., 3]
    """Returns colours between those of the wheel."""
    wheel = color_wheel()
    place = angle / (2 * np.pi) % 1 * (len(wheel) - 1)
    before = np.floor(place).astype(int)
    part = (place - before)[..., None]
    return (1 - part) * wheel[before] + part * wheel[(before + 1) % len(wheel)]
