"""Hugging Face's ViTForImageClassification <-> kind image_transformer, with a class token.

Its image processor squeezes a whole picture into the model's square, bilinearly; here the largest
central square of a picture is resized, bicubically, with the same mean and deviation. Of square
pictures both see all.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver.kinds import specs
from perceiver.weights.huggingface import transformer
from perceiver.weights.huggingface.layers import dropped, linear, norm
from perceiver.weights.mapping import Rule, Transform

CLASS = "ViTForImageClassification"
MODEL_TYPE = "vit"
KIND = "image_transformer"
TELLING = "vit.embeddings.cls_token"  # a name that only its state dict has

_DEFAULTS = transformer.DEFAULTS | {
    "num_channels": 3,
    "patch_size": 16,
    "qkv_bias": True,
}
_PATCHES = Transform(  # [out, in, height, width] <-> [height, width, in, out]
    read=lambda w: np.transpose(w, (2, 3, 1, 0)), write=lambda w: np.transpose(w, (3, 2, 0, 1))
)
_ALONE = Transform(read=lambda x: x.reshape(x.shape[1:]), write=lambda x: x[None])  # [1, n, D]


def spec_of(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the spec of a config.json; the arrays' shapes tell the number of labels.

    Raises:
      ValueError: a choice that has no counterpart here.
    """
    c = transformer.filled(config, _DEFAULTS)
    if not c["qkv_bias"]:
        raise ValueError(
            "qkv_bias=False is not supported: our queries, keys and values have biases"
        )
    classifier = shapes.get("classifier.weight")
    labels = len(config.get("id2label") or range(config.get("num_labels", 2)))
    return {
        "kind": KIND,
        "image_shape": (*_sides(config.get("image_size", 224)), c["num_channels"]),
        "classes": classifier[0] if classifier else labels,
        "patch_size": c["patch_size"],
        "positions": "learned",
        "class_token": True,
        "residual": "pre_norm",
        **transformer.sizes_of(c),
    }


def _sides(size: Any) -> tuple[int, int]:
    """Returns (height, width) of a side, or of both."""
    sides = [size, size] if isinstance(size, int) else size
    whole = isinstance(sides, list | tuple) and all(isinstance(n, int) for n in sides)
    if not whole or len(sides) != 2:
        raise ValueError(f"config.json: image_size={size!r} is neither one side length nor two")
    return tuple(sides)


def config_of(spec: specs.ImageTransformer, usage: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config.json of a spec."""
    del usage
    height, width, channels = spec.image_shape
    return {
        **transformer.config_of(spec),
        "image_size": height if height == width else [height, width],
        "num_channels": channels,
        "patch_size": spec.patch_size,
        "qkv_bias": True,
    }


def rules(spec: specs.ImageTransformer) -> list[Rule]:
    """Returns the table of names."""
    del spec
    inputs, project = "vit.embeddings", "vit.embeddings.patch_embeddings.projection"
    norms = {"layernorm_before": "attend/norm", "layernorm_after": "feed_forward/norm"}
    return [
        Rule(f"{inputs}.cls_token", "inputs/class_token/table", _ALONE),
        Rule(f"{inputs}.position_embeddings", "inputs/positions/table", _ALONE),
        Rule(f"{project}.weight", "inputs/project/w", _PATCHES),
        Rule(f"{project}.bias", "inputs/project/b"),
        *transformer.layers("vit.encoder.layer.{layer}", "attention.attention", norms),
        *norm("vit.layernorm", "norm"),
        *linear("classifier", "outputs/logits"),
        *dropped("vit.pooler.dense.weight", "vit.pooler.dense.bias"),
    ]


def usage_of(spec: specs.ImageTransformer, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the sections of `perceiver.kinds.usage` that differ from other image models'.

    Of a mean, a deviation and a crop that `preprocessor_config.json` does not tell.
    """
    del config
    half = [0.5] * spec.image_shape[-1]
    return {"image": {"mean": half, "std": list(half), "crop_fraction": 1.0}}
