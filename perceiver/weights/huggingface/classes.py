"""Hugging Face's classes; of the Perceivers, defaults of their config and what constructors fix."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from perceiver.kinds import specs
from perceiver.weights.huggingface import bert, vit

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

# What the constructors fix, by class.
IMAGE_CLASSES = {
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
TEXT = "PerceiverForMaskedLM"
TEXT_CLASSES = "PerceiverForSequenceClassification"
FLOW = "PerceiverForOpticalFlow"
VIDEO = "PerceiverForMultimodalAutoencoding"
CLASSES = (TEXT, TEXT_CLASSES, *IMAGE_CLASSES, FLOW, VIDEO)
TRANSFORMERS = {module.CLASS: module for module in (bert, vit)}  # have no Perceiver's config
MODEL_TYPES = ("perceiver", *(module.MODEL_TYPE for module in TRANSFORMERS.values()))

# Names that only one class's state dict has, most telling first.
_TELLING = {
    **{module.TELLING: name for name, module in TRANSFORMERS.items()},
    "embedding_decoder.bias": TEXT,
    "perceiver.input_preprocessor.embeddings.weight": TEXT_CLASSES,
    "perceiver.output_postprocessor.modalities.audio.classifier.weight": VIDEO,
    "perceiver.input_preprocessor.conv_after_patches.weight": FLOW,
    "perceiver.input_preprocessor.convnet.conv.weight": (
        "PerceiverForImageClassificationConvProcessing"
    ),
    "perceiver.input_preprocessor.convnet_1x1.weight": "PerceiverForImageClassificationLearned",
    "perceiver.decoder.decoder.final_layer.weight": "PerceiverForImageClassificationFourier",
}

Shapes = Mapping[str, tuple[int, ...]]  # of a state dict, by name


def class_of(config: Mapping[str, Any], shapes: Shapes) -> str:
    """Returns the name of Hugging Face's class, from the config or from the names of the arrays."""
    names = config.get("architectures") or [
        candidate for name, candidate in _TELLING.items() if name in shapes
    ]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"config.json's architectures is {names!r}, not a list of names")
    if not names:
        raise ValueError(
            "neither config.json nor the names of the arrays identify the model's class"
        )
    known = (*CLASSES, *TRANSFORMERS)
    if names[0] not in known:
        raise ValueError(
            f"config.json's architectures is {names[0]}; supported are {', '.join(known)}"
        )
    return names[0]


def check_body(spec: specs.Backbone) -> None:
    """Raises ValueError unless a spec is a Perceiver's, as their classes are."""
    if not spec.has_latents:
        raise ValueError(
            f"Hugging Face's classes of this kind are Perceivers; this {spec.kind} has "
            f"body={spec.body!r}, which they do not support: save it as native"
        )


def transformer_of(spec: specs.Spec) -> ModuleType | None:
    """Returns the module that knows the class of a Transformer; None of a Perceiver."""
    return next((x for x in TRANSFORMERS.values() if spec.kind == x.KIND), None)


def architecture(spec: specs.Spec) -> str:
    """Returns Hugging Face's class for a spec."""
    transformer = transformer_of(spec)
    if transformer is not None:
        return transformer.CLASS
    if spec.kind == "image_classifier":
        stems = {fixed["stem"]: name for name, fixed in IMAGE_CLASSES.items()}
        return stems[spec.stem]
    others = {"masked_lm": TEXT, "text_classifier": TEXT_CLASSES, "optical_flow": FLOW}
    return (others | {"video_autoencoder": VIDEO})[spec.kind]
