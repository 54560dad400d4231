"""What Hugging Face's BERT and ViT have in common: sizes in their configs, names of a layer."""

from collections.abc import Mapping
from typing import Any

from perceiver.kinds import specs
from perceiver.weights.huggingface.layers import linear, norm
from perceiver.weights.mapping import Rule

# What a config.json leaves out has these values, in both.
DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
# Theirs -> ours. Unlike the Perceivers, these were trained with the form that their config names.
_ACTIVATIONS = {"gelu": "gelu_erf", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_HIDDEN_ACT = {"gelu_erf": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}

_LAYERS = "processor/layers/self_attend"
_PROJECTIONS = {
    "attention.output.dense": "attend/attention/out",
    "intermediate.dense": "feed_forward/mlp/hidden",
    "output.dense": "feed_forward/mlp/out",
}


def filled(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config's values of the fields of `defaults`, which stand in for what it lacks.

    Raises:
      ValueError: a value of another type than its default; names both.
    """
    values = {name: config.get(name, default) for name, default in defaults.items()}
    for name, default in defaults.items():
        kinds = (int, float) if isinstance(default, float) else type(default)
        x = values[name]
        if not isinstance(x, kinds) or isinstance(x, bool) != isinstance(default, bool):
            raise ValueError(f"config.json: {name}={x!r} must have the type of {default!r}")
    return values


def sizes_of(c: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `specs.Transformer` that a filled config tells.

    Raises:
      ValueError: an activation or a width that has no counterpart here.
    """
    if c["hidden_act"] not in _ACTIVATIONS:
        raise ValueError(
            f"hidden_act={c['hidden_act']!r} is not supported; known are {', '.join(_ACTIVATIONS)}"
        )
    widening, rest = divmod(c["intermediate_size"], max(c["hidden_size"], 1))
    if rest:
        raise ValueError(
            f"intermediate_size={c['intermediate_size']} is not a multiple of "
            f"hidden_size={c['hidden_size']}; our MLPs are a whole number of times as wide"
        )
    return {
        "layers": c["num_hidden_layers"],
        "channels": c["hidden_size"],
        "heads": c["num_attention_heads"],
        "widening": widening,
        "activation": _ACTIVATIONS[c["hidden_act"]],
        "norm_epsilon": c["layer_norm_eps"],
    }


def config_of(spec: specs.Transformer) -> dict[str, Any]:
    """Returns the part of a config.json that tells the sizes of a spec."""
    return {
        "hidden_size": spec.channels,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.channels * spec.widening,
        "hidden_act": _HIDDEN_ACT[spec.activation],
        "layer_norm_eps": spec.norm_epsilon,
        "hidden_dropout_prob": spec.dropout_rate,
        "attention_probs_dropout_prob": spec.attention_dropout_rate,
        "initializer_range": 0.02,
    }


def layers(source: str, attention: str, norms: Mapping[str, str]) -> list[Rule]:
    """Returns the rules of a stack of layers.

    Args:
      source: of a layer, with "{layer}" in it.
      attention: the module of queries, keys and values in a layer.
      norms: its norms' names -> ours.
    """
    own = {f"{attention}.{name}": f"attend/attention/{name}" for name in ("query", "key", "value")}
    table = []
    for theirs, ours in (own | _PROJECTIONS).items():
        table += linear(f"{source}.{theirs}", f"{_LAYERS}/{ours}")
    for theirs, ours in norms.items():
        table += norm(f"{source}.{theirs}", f"{_LAYERS}/{ours}")
    return table
