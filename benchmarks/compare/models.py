"""The contenders: one base, of which each changes what makes it another system."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import perceiver

Spec = dict[str, Any]

HEADS = 4  # of all attention
_WIDTHS = (2 * HEADS, 6 * HEADS, 10 * HEADS)  # at which parameters are counted
_FITTED_SIDE, _FITTED_WINDOW = 4, 128  # of the images and bytes of these

# What each system is, in fields of a Perceiver IO's spec.
SYSTEMS: dict[str, Spec] = {
    "Perceiver IO": {},
    "Perceiver": {"encoders": (0, 1, 1), "processors": (0, 0, 0), "head": "mean"},
    "Transformer": {"body": "transformer"},
    "Performer": {"body": "transformer", "kernel": "favor_relu", "kernel_features": 64},
    "DeepNet stack": {"layers": 16, "residual": "deepnorm"},
}
CONVOLUTION = "convolutional network"
NAMES = (*SYSTEMS, CONVOLUTION)

_ATTENTION = {"layers": 3, "cross_heads": HEADS, "self_heads": HEADS, "query_heads": HEADS}
_IMAGES = {
    "kind": "image_classifier",
    "classes": 10,
    "positions": "fourier",
    "bands": 6,
    "latents": 16,
    "head": "query",
    **_ATTENTION,
}
_CONVOLUTION = {
    "kind": "image_resnet",
    "classes": 10,
    "stem": "small",
    "bottleneck": False,
    "blocks_per_stage": (1, 1, 1),
}
_TEXTS = {
    "kind": "masked_lm",
    "embedding_scale": 0.1,
    "position_scale": 0.1,
    "position_start": "sinusoids",
    "latents": 32,
    **_ATTENTION,
}


def images(side: int, parameters: int, names: Sequence[str]) -> dict[str, Spec]:
    """Returns the specs of systems for grey images, near a number of parameters."""
    return {
        name: image(name, side, width_for(functools.partial(image, name, _FITTED_SIDE), parameters))
        for name in names
    }


def texts(length: int, parameters: int, names: Sequence[str]) -> dict[str, Spec]:
    """Returns the specs of systems for windows of bytes, as wide at every length.

    Those for 128 bytes are near a number of parameters; longer ones learn more positions.
    """
    fitted = {name: functools.partial(text, name, _FITTED_WINDOW) for name in names}
    return {
        name: text(name, length, width_for(fitted[name], parameters))
        for name in names
        if name != CONVOLUTION
    }


def image(name: str, side: int, width: int) -> Spec:
    """Returns the spec of a system for grey images; its size does not depend on the side."""
    if name == CONVOLUTION:
        return _CONVOLUTION | {
            "image_shape": (side, side, 1),
            "stage_channels": (width // 2, width, 2 * width),
        }
    names = ("latent_channels", "query_channels", "cross_qk_channels", "cross_v_channels")
    widths = dict.fromkeys(names, width)
    return _IMAGES | {"image_shape": (side, side, 1)} | widths | SYSTEMS[name]


def text(name: str, length: int, width: int) -> Spec:
    """Returns the spec of a system for windows of bytes."""
    names = ("latent_channels", "embedding_channels", "cross_qk_channels", "cross_v_channels")
    widths = dict.fromkeys((*names, "query_qk_channels"), width)
    # every position is asked for, so no mean can answer
    changes = {field: x for field, x in SYSTEMS[name].items() if field != "head"}
    return _TEXTS | {"max_length": length} | widths | changes


def count(spec: Mapping[str, Any]) -> int:
    """Returns the number of parameters."""
    params, _ = jax.eval_shape(perceiver.build(spec).init, jax.random.key(0))
    return sum(x.size for x in jax.tree.leaves(params))


def width_for(spec_of_width: Callable[[int], Spec], parameters: int) -> int:
    """Returns the width whose number of parameters, a quadratic function of it, is nearest."""
    at = [count(spec_of_width(width)) for width in _WIDTHS]
    quadratic = np.polynomial.Polynomial.fit(_WIDTHS, at, deg=2)
    widths = np.arange(HEADS, 8 * _WIDTHS[-1], HEADS)
    return int(widths[np.abs(quadratic(widths) - parameters).argmin()])
