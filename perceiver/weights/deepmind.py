"""Parameter names of DeepMind's released Perceiver IO models -> ours.

Theirs are the module paths of `perceiver/perceiver.py` in google-deepmind/deepmind-research; for
example, `perceiver_encoder/~/self_attention_3/attention/linear_1` is the key projection of the
fourth layer, and the first layer has no number.
"""

import numpy as np

from perceiver.weights.mapping import Rule

_PROJECTIONS = {"linear": "query", "linear_1": "key", "linear_2": "value", "linear_3": "out"}
_MLP = {"linear": "hidden", "linear_1": "out"}
_CROSS_NORMS = {
    "layer_norm": "attend/norm",
    "layer_norm_1": "attend/norm_inputs",
    "layer_norm_2": "feed_forward/norm",
}
_SELF_NORMS = {"layer_norm": "attend/norm", "layer_norm_1": "feed_forward/norm"}


def _block(source: str, target: str, norms: dict[str, str]) -> list[Rule]:
    """Rules of one attention block: its norms, four projections, two layers of the MLP."""
    pairs = [(theirs, ours, "scale|offset") for theirs, ours in norms.items()]
    pairs += [(f"attention/{t}", f"attend/attention/{o}", "w|b") for t, o in _PROJECTIONS.items()]
    pairs += [(f"mlp/{t}", f"feed_forward/mlp/{o}", "w|b") for t, o in _MLP.items()]
    return [
        Rule(rf"{source}/{theirs}/(?P<leaf>{leaves})", rf"{target}/{ours}/\g<leaf>")
        for theirs, ours, leaves in pairs
    ]


def _table(source: str, target: str) -> Rule:
    return Rule(rf"{source}trainable_position_encoding/pos_embs", f"{target}/table")


_ENCODER = [
    _table("perceiver_encoder/~/", "latents"),
    *_block("perceiver_encoder/~/cross_attention", "encoder/cross_attend", _CROSS_NORMS),
    *_block(
        r"perceiver_encoder/~/self_attention(?:_(?P<layer>\d+))?",
        "processor/layers/self_attend",
        _SELF_NORMS,
    ),
]


def _decoder(scope: str) -> list[Rule]:
    target = "outputs/decoder/cross_attend"
    return [
        _table(f"{scope}/~/", "outputs/queries"),
        *_block(f"{scope}/cross_attention", target, _CROSS_NORMS),
    ]


def _flatten_kernel(w: np.ndarray) -> np.ndarray:  # [1, 1, 3, C] -> [3, C]
    return w.reshape(w.shape[2:])


_CLASSES = "classification_decoder/~/basic_decoder"
_IMAGE = "image_preprocessor/~_build_network_inputs"
_STEM = "image_preprocessor/~/conv2_d_downsample/~"

IMAGE_CLASSIFIER = (
    *_ENCODER,
    *_decoder(_CLASSES),
    Rule(rf"{_CLASSES}/output/(?P<leaf>w|b)", r"outputs/decoder/out/\g<leaf>"),
    # learned positions
    Rule("image_preprocessor/~/conv2_d/w", "inputs/project/w", _flatten_kernel),
    Rule("image_preprocessor/~/conv2_d/b", "inputs/project/b"),
    _table(f"{_IMAGE}/", "inputs/positions"),
    Rule(
        rf"{_IMAGE}/position_encoding_projector/linear/(?P<leaf>w|b)",
        r"inputs/project_positions/\g<leaf>",
    ),
    # convolutional stem
    Rule(f"{_STEM}/conv/w", "inputs/stem/w"),
    Rule(rf"{_STEM}/batchnorm/(?P<leaf>scale|offset)", r"inputs/stem/batch_norm/\g<leaf>"),
    Rule(
        rf"{_STEM}/batchnorm/~/(?P<ema>mean_ema|var_ema)/(?P<leaf>average|hidden|counter)",
        r"inputs/stem/batch_norm/~/\g<ema>/\g<leaf>",
    ),
)

MASKED_LM = (
    *_ENCODER,
    *_decoder("basic_decoder"),
    Rule("embed/embeddings", "embedding/table"),
    _table("", "inputs/positions"),
    Rule("embedding_decoder/bias", "outputs/b"),
)

RULES = {"image_classifier": IMAGE_CLASSIFIER, "masked_lm": MASKED_LM}
