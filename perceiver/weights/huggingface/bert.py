"""Hugging Face's BertForMaskedLM <-> kind masked_lm_transformer, with all of BERT's parts.

What its class computes beside that is left out: the pooler and the next-sentence head of files that
pre-training wrote, which a masked language model does not use, and dropout of the embedded tokens.
Its tokeniser is read from the folder (`perceiver.text.vocabularies`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver.kinds import specs
from perceiver.weights.huggingface import transformer
from perceiver.weights.huggingface.layers import dropped, linear, norm
from perceiver.weights.mapping import Rule
from perceiver.weights.stored import Arrays

CLASS = "BertForMaskedLM"
MODEL_TYPE = "bert"
KIND = "masked_lm_transformer"
TELLING = "cls.predictions.transform.dense.weight"  # a name that only its state dict has

TOKENIZER = "perceiver_tokenizer"  # field of config.json, of models of ours that read bytes

_DEFAULTS = transformer.DEFAULTS | {
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "tie_word_embeddings": True,
    "is_decoder": False,
    "add_cross_attention": False,
    "position_embedding_type": "absolute",
}
_FIXED = ("tie_word_embeddings", "is_decoder", "add_cross_attention", "position_embedding_type")

_TABLE, _TIED = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
_BIAS, _TIED_BIAS = "cls.predictions.bias", "cls.predictions.decoder.bias"
_OLD = {".gamma": ".weight", ".beta": ".bias"}  # names of a norm in files of TensorFlow's weights


def spec_of(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the spec of a config.json.

    Raises:
      ValueError: a choice that has no counterpart here.
    """
    del shapes
    c = transformer.filled(config, _DEFAULTS)
    for name in _FIXED:
        if c[name] != _DEFAULTS[name]:
            raise ValueError(f"{name}={c[name]!r} is not supported, only {_DEFAULTS[name]!r}")
    return {
        "kind": KIND,
        "vocabulary": c["vocab_size"],
        "max_length": c["max_position_embeddings"],
        "token_types": c["type_vocab_size"],
        "residual": "post_norm",
        "embedding_norm": True,
        "head_transform": True,
        **transformer.sizes_of(c),
    }


def config_of(spec: specs.MaskedLMTransformer, usage: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config.json of a spec."""
    bytewise = usage.get("tokenizer") == "bytes"
    return {
        **transformer.config_of(spec),
        "vocab_size": spec.vocabulary,
        "max_position_embeddings": spec.max_length,
        "type_vocab_size": spec.token_types,
        "tie_word_embeddings": True,
        **({TOKENIZER: "bytes"} if bytewise else {}),
    }


def rules(spec: specs.MaskedLMTransformer) -> list[Rule]:
    """Returns the table of names."""
    del spec
    inputs, head = "bert.embeddings", "cls.predictions"
    norms = {"attention.output.LayerNorm": "attend/norm", "output.LayerNorm": "feed_forward/norm"}
    return [
        Rule(_TABLE, "embedding/table"),
        Rule(f"{inputs}.position_embeddings.weight", "inputs/positions/table"),
        Rule(f"{inputs}.token_type_embeddings.weight", "inputs/token_types/table"),
        *norm(f"{inputs}.LayerNorm", "inputs/norm"),
        *transformer.layers("bert.encoder.layer.{layer}", "attention.self", norms),
        *linear(f"{head}.transform.dense", "outputs/transform"),
        *norm(f"{head}.transform.LayerNorm", "outputs/norm"),
        Rule(_BIAS, "outputs/b"),
        *dropped(
            f"{inputs}.position_ids",  # 0, 1, 2, ...
            _TIED,  # see `normalised`
            _TIED_BIAS,
            *(f"bert.pooler.dense.{name}" for name in ("weight", "bias")),
            *(f"cls.seq_relationship.{name}" for name in ("weight", "bias")),
        ),
    ]


def normalised(stored: Arrays) -> Arrays:
    """Returns a file's arrays under today's names.

    Raises:
      ValueError: what should be tied, and so may be dropped, differs.
    """
    renamed = {_renamed(name): x for name, x in stored.items()}
    for one, other in ((_TABLE, _TIED), (_BIAS, _TIED_BIAS)):
        both = one in renamed and other in renamed
        if both and not np.array_equal(renamed[one].read(), renamed[other].read()):
            raise ValueError(f"{other} differs from {one}; only tied weights are supported")
    return renamed


def _renamed(name: str) -> str:
    for old, new in _OLD.items():
        if name.endswith(f"LayerNorm{old}"):
            return name.removesuffix(old) + new
    return name


def usage_of(spec: specs.MaskedLMTransformer, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the sections of `perceiver.kinds.usage` that differ from other models' of texts."""
    del spec
    return {"tokenizer": "bytes" if config.get(TOKENIZER) == "bytes" else "external"}
