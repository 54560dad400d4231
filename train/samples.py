"""Sample pictures of a data set, to try a model on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def save(folder: Path, images: np.ndarray, names: Sequence[str]) -> Path:
    """Writes images [B, H, W, C] in [0, 1] as PNG files named after their class; returns folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        pixels = np.round(image * 255).astype(np.uint8)
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        safe = "".join(c if c.isalnum() else "_" for c in name)
        picture.save(folder / f"{index}_label_{safe}.png")
    return folder
