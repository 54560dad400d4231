"""Hugging Face's `config.json` -> our spec; `huggingface.export` is the way back.

A `PerceiverConfig` says little: much of a model's size is fixed in the constructor of its class.
Nor does it decide the arithmetic here. The hub's weights were trained by DeepMind's code, so
whatever a config says, our models compute that code's conventions: the tanh approximation of GELU
(but `save` marks a model of ours that has the exact one; load others with activation="gelu_erf"),
no query residual in the decoder of learned positions (their class adds one), and a convolutional
stem whose convolution and pool pad to the "same" size (theirs pads and pools otherwise).

Of BERT and ViT, a config says all: see `huggingface.bert` and `huggingface.vit`.
"""

import logging
from collections.abc import Mapping
from typing import Any

from perceiver.weights.huggingface.classes import (
    DEFAULTS,
    FLOW,
    IMAGE_CLASSES,
    TEXT,
    TEXT_CLASSES,
    TRANSFORMERS,
    VIDEO,
    Shapes,
    class_of,
)

logger = logging.getLogger(__name__)

ACTIVATION = "perceiver_activation"  # field of config.json: one of layers.ACTIVATIONS
TANH_GELU = ("gelu_pytorch_tanh", "gelu_new")


def spec_of(
    config: Mapping[str, Any], shapes: Shapes, processor: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the spec of a `config.json`, as the flat dict that `perceiver.build` takes.

    Args:
      config: the file's content.
      shapes: of the state dict; they tell the class where the config does not, and its labels.
      processor: the content of `preprocessor_config.json`, if there is one.

    Raises:
      ValueError: a class or a choice that has no counterpart here.
    """
    name = class_of(config, shapes)
    if name in TRANSFORMERS:
        return TRANSFORMERS[name].spec_of(config, shapes)
    c = DEFAULTS | {key: x for key, x in config.items() if key in DEFAULTS}
    _check_types(c)
    activation = config.get(ACTIVATION, "gelu_tanh")
    if c["hidden_act"] == "gelu" and activation == "gelu_tanh":
        logger.info(
            'config.json says "gelu" (erf), but DeepMind\'s tanh approximation is used; pass '
            'activation="gelu_erf" for a model that was trained in PyTorch'
        )
    elif c["hidden_act"] not in ("gelu", *TANH_GELU):
        choices = ", ".join(("gelu", *TANH_GELU))
        raise ValueError(f"hidden_act={c['hidden_act']!r} is not supported; known are {choices}")
    if not c["use_query_residual"]:
        raise ValueError("use_query_residual=false is not supported: our encoders always add it")
    if "max_resolution" in IMAGE_CLASSES.get(name, {}):
        c["image_size"] = _image_size(config, processor or {})
    own = {"activation": activation}
    return _backbone(c) | own | _OWN[name](c, name, _labels(config, shapes))


def sides(size: Any) -> list[int] | None:
    """Returns (height, width) of a size in `preprocessor_config.json`: a side, or both by name."""
    if isinstance(size, Mapping):
        size = [size.get("height"), size.get("width")]
    size = [size, size] if isinstance(size, int) else size
    whole = isinstance(size, list) and all(isinstance(n, int) and n > 0 for n in size)
    return size if whole and len(size) == 2 else None


def _image_size(config: Mapping[str, Any], processor: Mapping[str, Any]) -> Any:
    """The images' size where the class reads none from the config: its positions fit any.

    The hub's configs of these models leave `image_size` at a default that is not theirs.
    """
    named = config.get("image_size", DEFAULTS["image_size"])
    return sides(processor.get("size")) or (224 if named == DEFAULTS["image_size"] else named)


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
            raise ValueError(
                f"config.json: {name}={x!r} must be a number (or sides), such as {default}"
            )


def _labels(config: Mapping[str, Any], shapes: Shapes) -> int:
    for name in (
        "perceiver.output_postprocessor.modalities.label.classifier.weight",
        "perceiver.decoder.decoder.final_layer.weight",
    ):
        if name in shapes:
            return shapes[name][0]
    named, count = config.get("id2label"), config.get("num_labels", 2)
    if not isinstance(named, Mapping | None) or type(count) is not int or not 0 < count < 2**24:
        raise ValueError(
            f"config.json: id2label={named!r} must be an object, and num_labels={count!r} a number"[
                :300
            ]
        )
    return len(named) if named else count


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
        **IMAGE_CLASSES[name],
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


def _text_classes_spec(c: Mapping[str, Any], name: str, labels: int) -> dict[str, Any]:
    own = {"kind": "text_classifier", "classes": labels, "head": "linear", "query_residual": True}
    own |= {"query_heads": 1, "query_channels": c["d_latents"]}
    return _text_spec(c, name, labels) | own | {"query_qk_channels": c["d_latents"]}


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
    TEXT: _text_spec,
    TEXT_CLASSES: _text_classes_spec,
    FLOW: _flow_spec,
    VIDEO: _video_spec,
    **dict.fromkeys(IMAGE_CLASSES, _image_spec),
}
