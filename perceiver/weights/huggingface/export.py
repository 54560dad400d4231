"""Our spec -> Hugging Face's `config.json` and the files their processors read."""

import itertools
from collections.abc import Mapping
from typing import Any

from perceiver.kinds import specs
from perceiver.kinds import usage as defaults
from perceiver.summary import flops
from perceiver.weights.huggingface.classes import (
    DEFAULTS,
    MODEL_TYPES,
    architecture,
    check_body,
    transformer_of,
)
from perceiver.weights.huggingface.config import ACTIVATION, spec_of

# Choices of how a model is trained or computed: they change no released number.
_FREE = (
    *("dropout_rate", "attention_dropout_rate", "kernel", "operands", "cross_path", "decode_path"),
    *("chunk", "remat", "dtype", "embedding_scale", "position_scale", "position_start"),
    "label_mask_rate",
)


_HIDDEN_ACT = {"gelu_tanh": "gelu_pytorch_tanh", "gelu_erf": "gelu"}


def config_of(spec: specs.Spec, usage: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `config.json` with which Hugging Face's class builds the model of a spec.

    Raises:
      ValueError: they have no such model, or its constructor fixes a size that differs; lists all
        such fields.
    """
    transformer = transformer_of(spec)
    if transformer is not None:
        config, model_type = transformer.config_of(spec, usage), transformer.MODEL_TYPE
    elif spec.kind in _OWN:
        config, model_type = _perceiver_config(spec), MODEL_TYPES[0]
    else:
        raise ValueError(f"Hugging Face has Perceiver IO models only, not {spec.kind}")
    if hasattr(spec, "classes"):
        labels = usage.get("labels") or [f"LABEL_{i}" for i in range(spec.classes)]
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
    config |= {
        "architectures": [architecture(spec)],
        "model_type": model_type,
        "dtype": "float32",
    }
    _check(spec, config)
    return config


def _perceiver_config(spec: specs.Backbone) -> dict[str, Any]:
    check_body(spec)
    return DEFAULTS | {
        "num_latents": spec.latents,
        "d_latents": spec.latent_channels,
        "d_model": input_channels(spec),
        "num_blocks": spec.blocks,
        "num_self_attends_per_block": spec.layers,
        "num_self_attention_heads": spec.self_heads,
        "num_cross_attention_heads": spec.cross_heads,
        "self_attention_widening_factor": spec.self_widening,
        "cross_attention_widening_factor": spec.cross_widening,
        "hidden_act": _HIDDEN_ACT[spec.activation],
        ACTIVATION: spec.activation,
        "attention_probs_dropout_prob": spec.attention_dropout_rate,
        **_widths(spec),
        **_OWN[spec.kind](spec),
    }


def preprocessor_config(spec: specs.Spec, usage: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `preprocessor_config.json` of the image processor that does as we do."""
    image = usage.get("image") or defaults.default(spec)["image"]
    size = dict(zip(("height", "width"), spec.image_shape[:2], strict=True))
    return {
        "image_processor_type": "PerceiverImageProcessor",
        "do_center_crop": True,
        "crop_size": {side: round(n / image["crop_fraction"]) for side, n in size.items()},
        "do_resize": True,
        "size": size,
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image["mean"]),
        "image_std": list(image["std"]),
    }


def tokenizer_config(spec: specs.MaskedLM) -> dict[str, Any]:
    """Returns the `tokenizer_config.json` of their byte tokenizer; it needs no vocabulary."""
    names = ("pad", "bos", "eos", "mask", "cls", "sep")
    tokens = {f"{name}_token": f"[{name.upper()}]" for name in names}
    return {
        "tokenizer_class": "PerceiverTokenizer",
        "model_max_length": spec.max_length,
        **tokens,
    }


def input_channels(spec: specs.Backbone) -> int:
    """Returns C, the width of a model's byte array."""
    return flops.byte_array(spec)[1]


def _all_widths(spec: specs.Backbone) -> dict[str, int]:
    """The widths of keys and values, none of them 0."""
    inputs = input_channels(spec)
    return {
        f"{part}_{name}_channels": getattr(spec, f"{part}_{name}_channels") or width
        for part, width in (("cross", inputs), ("self", spec.latent_channels))
        for name in ("qk", "v")
    }


def _widths(spec: specs.Backbone) -> dict[str, Any]:
    """The settings from which their constructors derive the same widths as ours."""
    ours = _all_widths(spec)
    inputs, latents = input_channels(spec), spec.latent_channels
    shapes = {"kv": inputs, "q": latents}
    options = ((None, ours["cross_qk_channels"]), (None, ours["cross_v_channels"]), shapes)
    for qk, v, shape in itertools.product(*options):
        cross_qk, self_qk = qk or shapes[shape], qk or latents
        theirs = (cross_qk, v or cross_qk, self_qk, v or self_qk)
        if theirs == tuple(ours.values()):
            return {
                "qk_channels": qk,
                "v_channels": v,
                "cross_attention_shape_for_attention": shape,
            }
    raise ValueError(
        "Hugging Face's PerceiverConfig has one qk_channels and one v_channels for cross- and "
        f"self-attention; it cannot express {ours}"
    )


def _side(shape: tuple[int, ...]) -> int | list[int]:
    return shape[0] if shape[0] == shape[1] else list(shape)


def _video_config(spec: Any) -> dict[str, Any]:
    frames, *sides, _ = spec.video_shape
    if spec.samples % frames:
        raise ValueError(
            f"samples={spec.samples} cannot be expressed in Hugging Face's config, which holds the "
            f"samples of each of the {frames} frames"
        )
    return {
        "image_size": spec.video_resolution[-1],
        "num_frames": frames,
        "audio_samples_per_frame": spec.samples // frames,
        "samples_per_patch": spec.samples_per_patch,
        "output_shape": [1, frames, *sides],
        "output_num_channels": spec.decoder_channels,
        "_label_trainable_num_channels": spec.label_query_channels,
    }


def _text_config(spec: specs.MaskedLM) -> dict[str, Any]:
    return {"vocab_size": spec.vocabulary, "max_position_embeddings": spec.max_length}


_OWN = {
    "image_classifier": lambda spec: {"image_size": _side(spec.image_shape[:2])},
    **dict.fromkeys(("masked_lm", "text_classifier"), _text_config),
    "optical_flow": lambda spec: {"train_size": list(spec.frame_shape[:2])},
    "video_autoencoder": _video_config,
}


def _check(spec: specs.Backbone, config: Mapping[str, Any]) -> None:
    """Raises ValueError unless the config, read again, means the same model."""
    ours = meaning(spec)
    size = {"size": list(getattr(spec, "image_shape", ())[:2])}  # as in preprocessor_config
    theirs = meaning(specs.parse(spec_of(config, {}, size)))
    rows = [
        f"{name}={ours.get(name)}, required {theirs.get(name)}"
        for name in ours
        if ours[name] != theirs.get(name)
    ]
    if spec.kind == "image_classifier" and spec.positions == "learned" and not rows:
        height, width, _ = spec.image_shape
        rows += [f"image_shape={spec.image_shape}, required square"] if height != width else []
    if rows:
        raise ValueError(
            f"{architecture(spec)} requires sizes that this model does not have: " + "; ".join(rows)
        )


def meaning(spec: specs.Spec) -> dict[str, Any]:
    """Returns what makes a model: the fields that apply, with rules of 0 and () resolved.

    Two specs of the same meaning are the same function of the same parameters.
    """
    fields = {name: x for name, x in spec.to_dict().items() if name not in _FREE}
    if isinstance(spec, specs.ImageTransformer) and spec.positions == "learned":
        fields = {k: x for k, x in fields.items() if k not in ("bands", "max_resolution")}
    if not isinstance(spec, specs.Backbone):
        return fields
    fields |= _all_widths(spec)
    if spec.kind == "image_classifier":
        fields["max_resolution"] = spec.max_resolution or spec.grid
        unused = ["permutation", *({"pixels": ["stem_channels"]}.get(spec.stem, []))]
        unused += [] if spec.stem == "conv" else ["stem_window", "stem_stride"]
        unused += {"fourier": ["position_channels"], "learned": ["bands", "max_resolution"]}[
            spec.positions
        ]
        fields = {name: x for name, x in fields.items() if name not in unused}
    if spec.kind == "text_classifier":
        fields["query_channels"] = fields["query_channels"] or spec.embedding_channels
    if spec.kind == "optical_flow":
        fields["max_resolution"] = spec.resolution
        for name in ("query_qk_channels", "query_v_channels"):
            fields[name] = fields[name] or spec.latent_channels
    if spec.kind == "video_autoencoder":
        fields["video_max_resolution"] = spec.video_resolution
        fields["audio_max_resolution"] = spec.audio_resolution
    return fields
