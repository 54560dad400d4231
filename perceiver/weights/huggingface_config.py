"""Hugging Face's `config.json` -> our spec, and back.

A `PerceiverConfig` says little: much of a model's size is fixed in the constructor of its class.
Nor does it decide the arithmetic here. The hub's weights were trained by DeepMind's code, so
whatever a config says, our models compute that code's conventions: the tanh approximation of GELU,
no query residual in the decoder of learned positions (their class adds one), and a convolutional
stem whose convolution and pool pad to the "same" size (theirs pads and pools otherwise).
"""

import logging
from collections.abc import Mapping
from typing import Any

from perceiver import specs

logger = logging.getLogger(__name__)

# What a config.json leaves out has these values.
DEFAULTS = {
    "num_latents": 256,
    "d_latents": 1280,
    "d_model": 768,
    "num_blocks": 1,
    "num_self_attends_per_block": 26,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 8,
    "qk_channels": None,
    "v_channels": None,
    "cross_attention_shape_for_attention": "kv",
    "self_attention_widening_factor": 1,
    "cross_attention_widening_factor": 1,
    "hidden_act": "gelu",
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,  # not read by their classes, which use 1e-5 as DeepMind does
    "use_query_residual": True,
    "vocab_size": 262,
    "max_position_embeddings": 2048,
    "image_size": 56,
    "train_size": [368, 496],
    "num_frames": 16,
    "audio_samples_per_frame": 1920,
    "samples_per_patch": 16,
    "output_shape": [1, 16, 224, 224],
    "output_num_channels": 512,
    "_label_trainable_num_channels": 1024,
}
TANH_GELU = ("gelu_pytorch_tanh", "gelu_new")

# What the constructors fix, by class.
_IMAGE_CLASSES = {
    "PerceiverForImageClassificationLearned": {
        "stem": "conv1x1",
        "stem_channels": 256,
        "positions": "learned",
        "position_channels": 256,
        "query_residual": False,
    },
    "PerceiverForImageClassificationFourier": {
        "stem": "pixels",
        "bands": 64,
        "max_resolution": (224, 224),
        "query_residual": True,
    },
    "PerceiverForImageClassificationConvProcessing": {
        "stem": "conv",
        "stem_channels": 64,
        "bands": 64,
        "max_resolution": (56, 56),
        "query_residual": True,
    },
}
_TEXT = "PerceiverForMaskedLM"
_FLOW = "PerceiverForOpticalFlow"
_VIDEO = "PerceiverForMultimodalAutoencoding"
CLASSES = (_TEXT, *_IMAGE_CLASSES, _FLOW, _VIDEO)

# Names that only one class's state dict has, most telling first.
_TELLING = {
    "embedding_decoder.bias": _TEXT,
    "perceiver.output_postprocessor.modalities.audio.classifier.weight": _VIDEO,
    "perceiver.input_preprocessor.conv_after_patches.weight": _FLOW,
    "perceiver.input_preprocessor.convnet.conv.weight": (
        "PerceiverForImageClassificationConvProcessing"
    ),
    "perceiver.input_preprocessor.convnet_1x1.weight": "PerceiverForImageClassificationLearned",
    "perceiver.decoder.decoder.final_layer.weight": "PerceiverForImageClassificationFourier",
}

Shapes = Mapping[str, tuple[int, ...]]  # of a state dict, by name


def spec_of(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Returns the spec of a `config.json`, as the flat dict that `perceiver.build` takes.

    Args:
      config: the file's content.
      shapes: of the state dict; they tell the class where the config does not, and its labels.

    Raises:
      ValueError: a class or a choice that has no counterpart here.
    """
    name = class_of(config, shapes)
    c = DEFAULTS | {key: x for key, x in config.items() if key in DEFAULTS}
    _check_types(c)
    if c["hidden_act"] == "gelu":
        logger.info(
            'config.json says "gelu" (erf); computed is DeepMind\'s, its tanh approximation'
        )
    elif c["hidden_act"] not in TANH_GELU:
        choices = ", ".join(("gelu", *TANH_GELU))
        raise ValueError(f"hidden_act={c['hidden_act']!r} is not supported; known are {choices}")
    if not c["use_query_residual"]:
        raise ValueError("use_query_residual=false is not supported: our encoders always add it")
    return _backbone(c) | _OWN[name](c, name, _labels(config, shapes))


def _check_types(c: Mapping[str, Any]) -> None:
    for name, default in DEFAULTS.items():
        x, number = c[name], isinstance(c[name], int) and not isinstance(c[name], bool)
        numbers = isinstance(x, list | tuple) and all(isinstance(n, int) for n in x)
        fits = {
            "qk_channels": number or x is None,
            "v_channels": number or x is None,
            "image_size": number or (numbers and len(x) == 2),
            "train_size": numbers and len(x) == 2,
            "output_shape": numbers and len(x) == 4,
        }.get(name, number if type(default) is int else True)
        if not fits:
            raise ValueError(f"config.json: {name}={x!r} is not a number (or sides) as {default}")


def class_of(config: Mapping[str, Any], shapes: Shapes) -> str:
    """Returns the name of Hugging Face's class, from the config or from the names of the arrays."""
    names = config.get("architectures") or [
        found for name, found in _TELLING.items() if name in shapes
    ]
    if not names:
        raise ValueError("neither config.json nor the names of the arrays tell the model's class")
    if names[0] not in CLASSES:
        raise ValueError(
            f"config.json's architectures say {names[0]}; supported are {', '.join(CLASSES)}"
        )
    return names[0]


def _labels(config: Mapping[str, Any], shapes: Shapes) -> int:
    for name in (
        "perceiver.output_postprocessor.modalities.label.classifier.weight",
        "perceiver.decoder.decoder.final_layer.weight",
    ):
        if name in shapes:
            return shapes[name][0]
    return len(config.get("id2label") or range(config.get("num_labels", 2)))


def _backbone(c: Mapping[str, Any]) -> dict[str, Any]:
    # One pair of widths serves the cross-attend and the self-attends; values default to keys.
    of_queries = c["cross_attention_shape_for_attention"] == "q"
    cross_qk = c["qk_channels"] or (c["d_latents"] if of_queries else 0)
    return {
        "latents": c["num_latents"],
        "latent_channels": c["d_latents"],
        "layers": c["num_self_attends_per_block"],
        "blocks": c["num_blocks"],
        "cross_heads": c["num_cross_attention_heads"],
        "cross_qk_channels": cross_qk,
        "cross_v_channels": c["v_channels"] or cross_qk,
        "cross_widening": c["cross_attention_widening_factor"],
        "self_heads": c["num_self_attention_heads"],
        "self_qk_channels": c["qk_channels"] or 0,
        "self_v_channels": c["v_channels"] or c["qk_channels"] or 0,
        "self_widening": c["self_attention_widening_factor"],
    }


def _image_spec(c: Mapping[str, Any], name: str, labels: int) -> dict[str, Any]:
    size = c["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return {
        "kind": "image_classifier",
        "image_shape": (height, width, 3),
        "classes": labels,
        "head": "query",
        "query_channels": c["d_latents"],
        "query_heads": 1,
        **_IMAGE_CLASSES[name],
    }


def _text_spec(c: Mapping[str, Any], name: str, labels: int) -> dict[str, Any]:
    return {
        "kind": "masked_lm",
        "vocabulary": c["vocab_size"],
        "max_length": c["max_position_embeddings"],
        "embedding_channels": c["d_model"],
        "query_heads": 8,
        "query_qk_channels": 256,
        "query_residual": False,
    }


def _flow_spec(c: Mapping[str, Any], name: str, labels: int) -> dict[str, Any]:
    return {
        "kind": "optical_flow",
        "frame_shape": (*c["train_size"], 3),
        "patch_size": 3,
        "patch_channels": 64,
        "bands": 64,
        "query_heads": 1,
        "query_residual": False,
        "output_scale": 0.01,
    }


def _video_spec(c: Mapping[str, Any], name: str, labels: int) -> dict[str, Any]:
    _, *shape = c["output_shape"]
    side, samples = c["image_size"], c["num_frames"] * c["audio_samples_per_frame"]
    return {
        "kind": "video_autoencoder",
        "video_shape": (*shape, 3),
        "samples": samples,
        "classes": labels,
        "patch_size": 4,
        "samples_per_patch": c["samples_per_patch"],
        "video_bands": 32,
        "video_max_resolution": (c["num_frames"], side, side),
        "audio_bands": 192,
        "audio_max_resolution": (samples,),
        "input_padding": 4,
        "query_padding": 2,
        "label_query_channels": c["_label_trainable_num_channels"],
        "decoder_channels": c["output_num_channels"],
        "query_heads": 1,
        "query_residual": False,
    }


_OWN = {
    _TEXT: _text_spec,
    _FLOW: _flow_spec,
    _VIDEO: _video_spec,
    **dict.fromkeys(_IMAGE_CLASSES, _image_spec),
}


def architecture(spec: specs.Backbone) -> str:
    """Returns Hugging Face's class for a spec."""
    if spec.kind == "image_classifier":
        stems = {fixed["stem"]: name for name, fixed in _IMAGE_CLASSES.items()}
        return stems[spec.stem]
    return {"masked_lm": _TEXT, "optical_flow": _FLOW, "video_autoencoder": _VIDEO}[spec.kind]
