"""Draws what is seen of a synthetic scene: a large object that moves over a coloured ground."""

import math

import numpy as np

from data.clips.scene_plans import EVENTS, ScenePlan

LIGHT, DARK = (150.0, 250.0), (5.0, 90.0)  # of 255; red, green and blue each by itself
PERIODS = (0.45, 0.7)  # seconds of a motion: a window of 16 frames is 0.64 s
_STREAM = 1  # sight and sound draw from streams of their own


def draw(plan: ScenePlan, frames: int, side: int, frames_per_second: float) -> np.ndarray:
    """Returns the video, uint8 [T, side, side, 3]; what is heard of the plan changes nothing."""
    rng = np.random.default_rng((*plan.seed, _STREAM))
    times = np.arange(frames, dtype=np.float32) / np.float32(frames_per_second)
    grid = np.linspace(-1, 1, side, dtype=np.float32)
    ink, paper = _colours(rng)
    ground = _ground(paper, grid, rng)  # [H, W, 3]
    cover = _object(plan, times, grid, rng)[..., None]  # [T, H, W, 1]
    pixels = ground[None] * (1 - cover) + ink * cover
    for event in plan.events:
        draws = np.random.default_rng((*plan.seed, _STREAM, EVENTS.index(event)))
        pixels = _EVENTS[event](pixels, grid, draws)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:  # [3], [3] float32
    """Of a light object and a dark ground."""
    return tuple(rng.uniform(*bounds, 3).astype(np.float32) for bounds in (LIGHT, DARK))


def _ground(paper: np.ndarray, grid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A slight ramp of any direction, [H, W, 3]."""
    angle = rng.uniform(0, 2 * math.pi)
    ramp = grid[:, None] * np.float32(math.sin(angle)) + grid[None] * np.float32(math.cos(angle))
    return paper + ramp[..., None] * rng.uniform(-15, 15, 3).astype(np.float32)


def _object(plan: ScenePlan, times: np.ndarray, grid: np.ndarray, rng: np.random.Generator):
    """Returns where the object is, float32 [T, H, W] of 0 and 1."""
    centre = rng.uniform(-0.25, 0.25, 2).astype(np.float32)
    radius = np.float32(rng.uniform(0.45, 0.58))
    phase = rng.uniform(0, 2 * math.pi)
    swing = np.sin(2 * math.pi * times / rng.uniform(*PERIODS) + phase).astype(np.float32)  # [T]
    still = np.zeros_like(swing)
    across = 0.4 * swing if plan.motion == "sliding" else still
    down = 0.4 * swing if plan.motion == "bouncing" else still
    scale = radius * (1 + 0.4 * swing if plan.motion == "growing" else still + 1)  # [T]
    x = (grid[None] - (centre[0] + across)[:, None]) / scale[:, None]  # [T, W]
    y = (grid[None] - (centre[1] + down)[:, None]) / scale[:, None]  # [T, H]
    return _SHAPES[plan.shape](x[:, None, :], y[:, :, None]).astype(np.float32)


def _within(x, y):
    return np.maximum(np.abs(x), np.abs(y)) < 0.95


# Shapes that stay apart at 32 pixels and under a mirror: x [T, 1, W], y [T, H, 1] in radii.
_SHAPES = {
    "disk": lambda x, y: x**2 + y**2 < 1,
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.4),
    "cross": lambda x, y: _within(x, y) & (np.minimum(np.abs(x), np.abs(y)) < 0.3),
    "bars": lambda x, y: _within(x, y) & (np.abs(np.mod(y + 0.95, 0.76)) < 0.38),
}


def _lamp(pixels, grid, rng):
    """A bright frame around the picture."""
    edge = np.maximum(np.abs(grid)[:, None], np.abs(grid)[None]) > 0.8  # [H, W]
    return np.where(edge[None, ..., None], np.float32(250), pixels)


def _rain(pixels, grid, rng):
    """Bright drops that fall as one sheet, which a video codec stores in little."""
    drops = rng.random((len(grid), len(grid))) < 0.05  # [H, W]
    falling = np.stack([np.roll(drops, 2 * t, axis=0) for t in range(len(pixels))])  # [T, H, W]
    return np.where(falling[..., None], np.float32(235), pixels)


def _shade(pixels, grid, rng):
    """The lowest quarter in the dark."""
    light = np.where(grid > 0.5, np.float32(0.15), np.float32(1))  # [H]
    return pixels * light[None, :, None, None]


_EVENTS = {"lamp": _lamp, "rain": _rain, "shade": _shade}
