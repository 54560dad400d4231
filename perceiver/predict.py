"""Classifies image files with a trained model.

python -m perceiver.predict RUN IMAGE [IMAGE ...]     RUN: a run's folder, or an exported model
python -m perceiver.predict RUN IMAGE --json          one JSON object per image
"""

import argparse
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from perceiver import images
from perceiver.weights import native

BATCH = 64


def load(folder: str | os.PathLike) -> native.Saved:
    """Loads the image classifier of a run or of an exported model.

    Raises:
      FileNotFoundError: the folder holds no exported model.
      ValueError: its model does not classify images, or a file is broken.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give a run's folder or an exported model")
    if (folder / "checkpoints").is_dir() and not (folder / "model").is_dir():
        raise FileNotFoundError(
            f"{folder} is a run that has not exported its model yet: let the training command "
            f"finish, or export the last checkpoint with `python -m train.export {folder}`"
        )
    saved = native.load(folder / "model" if (folder / "model").is_dir() else folder)
    if saved.model.spec.kind != "image_classifier":
        raise ValueError(f"{folder} holds a {saved.model.spec.kind} model, not an image_classifier")
    return saved


def classify(
    saved: native.Saved, files: Sequence[Any], *, top_k: int = 3
) -> list[list[tuple[str, float]]]:
    """Returns the top_k (label, probability) of each image, best first.

    Args:
      saved: from `load`.
      files: paths, encoded bytes, or uint8 arrays [H, W, C] of any size.
      top_k: how many labels an image gets, at most all.
    """
    usage = saved.usage["image"]
    height, width, channels = saved.model.spec.image_shape

    def read(file) -> np.ndarray:
        picture = images.to_pil(file, channels)
        box = images.central_box(picture, usage["crop_fraction"])
        pixels = images.resize(picture, (height, width), box)
        return images.normalise(pixels, usage["mean"], usage["std"])

    @jax.jit
    def probabilities(image):
        logits, _ = saved.model.apply(saved.params, saved.state, None, {"image": image})
        return jax.nn.softmax(logits)

    results = []
    for start in range(0, len(files), BATCH):
        batch = np.stack([read(file) for file in files[start : start + BATCH]])
        for row in np.asarray(probabilities(batch)):
            best = np.argsort(-row, kind="stable")[:top_k]
            results.append([(saved.usage["labels"][i], float(row[i])) for i in best])
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the labels of image files."""
    parser = argparse.ArgumentParser(
        prog="python -m perceiver.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=pathlib.Path, help="folder of a run or of an exported model")
    parser.add_argument("images", nargs="+", type=pathlib.Path, help="PNG, JPEG, ... files")
    parser.add_argument("--json", action="store_true", help="print one JSON object per image")
    parser.add_argument("--top", type=int, default=3, help="labels per image (default 3)")
    options = parser.parse_args(arguments)
    if options.top < 1:
        parser.error(f"--top must be at least 1, got {options.top}")
    try:
        results = classify(load(options.run), options.images, top_k=options.top)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    for file, labels in zip(options.images, results, strict=True):
        if options.json:
            best = [{"label": label, "probability": p} for label, p in labels]
            print(json.dumps({"file": str(file), "labels": best}, ensure_ascii=False))
        else:
            print(f"{file}: " + ", ".join(f"{label} {p:.1%}" for label, p in labels))


if __name__ == "__main__":
    main()
