"""A trained model at another image size.

Fourier positions are recomputed on the new grid: coordinates still run from -1 to 1 and the
frequencies stay those of training. Learned positions are a picture of the old grid, and are
interpolated bilinearly. Neither is what a model trained at the new size would have; fine-tune for
the best result.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.kinds import specs

_TABLE = "inputs/positions"


def resize(spec: specs.Spec, params: dict[str, Any], size: tuple[int, int]):
    """Returns (spec, params) for images of another (height, width).

    Raises:
      ValueError: the kind of model has no image size of its own, a permutation of its pixels
        matters to it, or it cannot have that size.
    """
    names = dict.fromkeys(specs.IMAGE_CLASSIFIERS, "image_shape") | {"optical_flow": "frame_shape"}
    name = names.get(spec.kind)
    if name is None:
        raise ValueError(f"a {spec.kind} model has no image size to change")
    if not isinstance(spec, specs.Backbone) and spec.permutation:
        raise ValueError(
            f"this {spec.kind} permutes the pixels of one image size and cannot be resized"
        )
    height, width = size
    if min(size) < 1:
        raise ValueError(f"image size {size} must be positive")
    old = getattr(spec, name)
    changes: dict[str, Any] = {name: (height, width, old[2])}
    learned = getattr(spec, "positions", "fourier") == "learned"
    grids = _grid(spec, old), _grid(spec, size)
    if not learned and not spec.max_resolution:
        changes["max_resolution"] = grids[0]  # () would follow the new size
    if learned:
        table = params[_TABLE]["table"]
        apart = 1 if getattr(spec, "class_token", False) else 0  # a position of no place
        places = _interpolate(table[apart:], *grids)
        params = params | {_TABLE: {"table": jnp.concatenate([table[:apart], places])}}
    return dataclasses.replace(spec, **changes), params


def _grid(spec: specs.Spec, size: tuple[int, ...]) -> tuple[int, int]:
    """Returns the grid that has positions.

    That of a convolutional stem is coarser; learned positions of a Transformer are those of its
    patches.
    """
    if isinstance(spec, specs.ImageTransformer) and spec.positions == "learned":
        return size[0] // spec.patch_size, size[1] // spec.patch_size
    if isinstance(spec, specs.ImageClassifier):
        return dataclasses.replace(spec, image_shape=(*size[:2], spec.image_shape[2])).grid
    return tuple(size[:2])


def _interpolate(table, old: tuple[int, int], new: tuple[int, int]):  # [h w, P] -> [h' w', P]
    grid = jnp.asarray(np.asarray(table)).reshape(*old, -1)
    return jax.image.resize(grid, (*new, grid.shape[-1]), "bilinear").reshape(-1, grid.shape[-1])
