"""Attention weights over all inputs, sorted by modality."""

from typing import Any

import jax
import numpy as np

from perceiver.kinds.models import Model
from perceiver.summary import byte_array_shapes


def by_modality(
    model: Model, inputs: dict[str, Any], maps: list[np.ndarray]
) -> list[dict[str, np.ndarray]]:
    """Returns {segment: [B, H, N, *dims]} for each cross-attend's weights [B, H, N, M]."""
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in inputs.items()}
    segments = byte_array_shapes(model, shapes).segments
    ends = np.cumsum([segment.size for segment in segments])[:-1]
    split = []
    for weights in maps:
        parts = np.split(weights, ends, axis=-1)
        split.append(
            {
                segment.name: part.reshape(*part.shape[:-1], *segment.dims)
                for segment, part in zip(segments, parts, strict=True)
            }
        )
    return split
