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

    The first and the last cross-attend are shown (they are one in Perceiver IO), heads averaged:
    the mean over all latents, and the latents that look most sharply (least entropy over these
    images). M must be a grid of the image's proportions (pixels, or what a stem leaves of them).
    """
    stages = {"first": maps[0]} | ({"last": maps[-1]} if len(maps) > 1 else {})
    columns = 1 + len(stages) * (LATENTS + 1)
    figure = Figure(figsize=(1.15 * columns, 1.15 * len(images) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), columns, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, image in zip(axes[:, 0], images, strict=True):
        panel.imshow(image.squeeze(), cmap="gray" if image.shape[-1] == 1 else None)
    axes[0, 0].set_title("image", fontsize=7)
    for index, (name, stage) in enumerate(stages.items()):
        grids = _grids(stage.mean(axis=1), images.shape)  # [B, N, h, w]
        where = f"{name} cross-attend\n" if len(stages) > 1 else ""
        shown = {f"{where}all {grids.shape[1]} latents": grids.mean(axis=1)}
        shown |= {f"{where}latent {i}": grids[:, i] for i in _sharpest(grids)}
        first = 1 + index * (LATENTS + 1)
        for column, (title, maps_of) in enumerate(shown.items(), start=first):
            axes[0, column].set_title(title, fontsize=7)
            for panel, grid in zip(axes[:, column], maps_of, strict=True):
                panel.imshow(grid, cmap="magma")
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


def _grids(weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:  # -> [B, N, h, w]
    height, width = shape[1:3]
    factor = round((height * width / weights.shape[-1]) ** 0.5)  # of a stem: 4, else 1
    return weights.reshape(*weights.shape[:2], -(-height // factor), -(-width // factor))


def _sharpest(grids: np.ndarray) -> np.ndarray:  # [B, N, h, w] -> [LATENTS]
    p = grids.reshape(*grids.shape[:2], -1).astype(np.float64)
    entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=-1).mean(axis=0)  # [N]
    return np.argsort(entropy, kind="stable")[:LATENTS]
