"""Pictures of a trained model: where its latents look, and samples to try it on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

LATENTS = 6  # shown per image and cross-attend


def draw_attention(path: Path, images: np.ndarray, maps: Sequence[np.ndarray]) -> Path:
    """Draws images [B, H, W, C] in [0, 1] beside attention maps, one [B, heads, N, M] per stage.

    The first and the last cross-attend are shown (they are one in Perceiver IO), heads averaged,
    for the latents that look most sharply (least entropy), and the mean over all latents. M must
    be a grid of the image's proportions (pixels, or what a stem leaves of them).
    """
    stages = {"first": maps[0]} | ({"last": maps[-1]} if len(maps) > 1 else {})
    columns = 1 + len(stages) * (LATENTS + 1)
    figure = Figure(figsize=(1.15 * columns, 1.25 * len(images) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), columns, squeeze=False)
    for row, image in enumerate(images):
        _panel(axes[row, 0], image, "image" if row == 0 else "")
        column = 1
        for name, stage in stages.items():
            prefix = f"{name} cross-attend\n" if len(stages) > 1 else ""
            grids = _grids(stage[row].mean(axis=0), image.shape)  # [N, h, w]
            panels = [(grids.mean(axis=0), f"{prefix}mean of {len(grids)} latents")]
            panels += [(grids[i], f"{prefix}latent {i}") for i in _sharpest(grids)]
            for grid, title in panels:
                # titles differ per row: the sharpest latents are chosen for each image
                _panel(axes[row, column], grid, title)
                column += 1
        for spare in axes[row, column:]:
            spare.set_axis_off()
    figure.savefig(path, dpi=110)
    return path


def save_samples(folder: Path, images: np.ndarray, names: Sequence[str]) -> Path:
    """Writes images [B, H, W, C] in [0, 1] as PNG files named after their class; returns folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        pixels = np.round(image * 255).astype(np.uint8)
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        safe = "".join(c if c.isalnum() else "_" for c in name)
        picture.save(folder / f"{index}_label_{safe}.png")
    return folder


def _grids(weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:  # [N, M] -> [N, h, w]
    height, width = shape[:2]
    factor = round((height * width / weights.shape[-1]) ** 0.5)
    return weights.reshape(-1, -(-height // factor), -(-width // factor))


def _sharpest(grids: np.ndarray) -> np.ndarray:  # [N, h, w] -> indices
    p = grids.reshape(len(grids), -1).astype(np.float64)
    entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=-1)
    return np.argsort(entropy, kind="stable")[:LATENTS]


def _panel(axes, image: np.ndarray, title: str) -> None:
    gray = image.ndim == 2 or image.shape[-1] == 1
    axes.imshow(image.squeeze(), cmap=("magma" if image.ndim == 2 else "gray") if gray else None)
    axes.set_title(title, fontsize=7)
    axes.set_axis_off()
