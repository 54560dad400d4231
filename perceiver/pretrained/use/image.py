"""Image classifiers: pictures in, labels out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perceiver.kinds import specs
from perceiver.media import images
from perceiver.pretrained.runner import Runner
from perceiver.pretrained.use.items import in_batches, listed


def prepare(
    spec: specs.ImageClassifier, usage: dict[str, Any], pictures: Any
) -> dict[str, np.ndarray]:
    """Returns {"image": float32 [B, H, W, C]}: central crop, bicubic resize, normalisation.

    Args:
      spec: of the model. usage: its preprocessing.
      pictures: one or several: files, encoded bytes, Pillow images, or uint8 arrays [H', W', C'].

    Raises:
      FileNotFoundError, ValueError: something that is no picture.
    """
    height, width, channels = spec.image_shape
    how = usage["image"]

    def read(file) -> np.ndarray:
        picture = images.to_pil(file, channels)
        box = images.central_box(picture, how["crop_fraction"], aspect=width / height)
        pixels = images.resize(picture, (height, width), box)
        return images.normalise(pixels, how["mean"], how["std"])

    return {"image": np.stack([read(file) for file in listed(pictures)])}


def classify(
    run: Runner, pictures: Any, usage: dict[str, Any], *, top_k: int = 5
) -> list[list[tuple[str, float]]]:
    """Returns the top_k (label, probability) of each picture, best first."""
    spec = run.model.spec
    logits = in_batches(
        pictures, run.batch_size, lambda some: run.apply(prepare(spec, usage, some))
    )
    return [best_of(row[None], usage["labels"], top_k) for row in logits]


def best_of(logits: np.ndarray, labels: Sequence[str], top_k: int) -> list[tuple[str, float]]:
    """[B, K] -> the top_k (label, probability), best first; probabilities averaged over B."""
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    scores = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    scores = (scores / scores.sum(axis=-1, keepdims=True)).mean(axis=0)
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [(labels[i], float(scores[i])) for i in order]
