"""Exact cross-attention to a `ByteArray`, from the same parameters, along the cheapest path.

`choose` plans from static shapes (`plan` lists the paths), `attend` follows the plan. All paths
compute the function that `keys_and_values` and the reference kernel define; they differ in
what they form, as `absorb`, `separable`, `shared` and `streaming` explain. One difference is
wanted: the key bias, which the softmax does not see, gets a gradient of exactly zero from all
paths but the plain one, where rounding noise of it would be normalised into drift by Adam or LAMB.
"""

from perceiver.cross_attention.absorb import Weights
from perceiver.cross_attention.merge import merge, merge_across
from perceiver.cross_attention.paths import attend, attention_weights, keys_and_values
from perceiver.cross_attention.plan import FEW_WEIGHTS, PathChoice, Plan, Sizes, choose
from perceiver.cross_attention.sequence import Sequence
from perceiver.cross_attention.statistics import inverse_std, prepare

__all__ = [
    "FEW_WEIGHTS",
    "PathChoice",
    "Plan",
    "Sequence",
    "Sizes",
    "Weights",
    "attend",
    "attention_weights",
    "choose",
    "inverse_std",
    "keys_and_values",
    "merge",
    "merge_across",
    "prepare",
]
