"""Parameter names of DeepMind's released Perceiver IO models -> ours, by kind of model.

Theirs are the module paths of `perceiver/perceiver.py` in google-deepmind/deepmind-research; for
example, `perceiver_encoder/~/self_attention_3/attention/linear_1` is the key projection of the
fourth layer, and the first layer has no number. What they call image in a video, we call video.
"""

from collections.abc import Callable, Iterable

from perceiver.kinds import specs
from perceiver.weights.mapping import KEEP, Rule, Transform

# A 1x1 convolution is a linear layer: [1, 1, C, F] <-> [C, F].
POINTWISE = Transform(
    read=lambda w: w.reshape(w.shape[2:] if w.shape[:2] == (1, 1) else w.shape),
    write=lambda w: w[None, None],
)

_PROJECTIONS = {"linear": "query", "linear_1": "key", "linear_2": "value", "linear_3": "out"}
_MLP = {"linear": "hidden", "linear_1": "out"}
_CROSS_NORMS = {
    "layer_norm": "attend/norm",
    "layer_norm_1": "attend/norm_inputs",
    "layer_norm_2": "feed_forward/norm",
}
_SELF_NORMS = {"layer_norm": "attend/norm", "layer_norm_1": "feed_forward/norm"}


def rules(spec: specs.Backbone, *, history: bool = True) -> tuple[Rule, ...]:
    """Returns the table of a model: one name for each of its parameters, and of its state.

    Args:
      spec: of the model.
      history: whether the file keeps batch norm's `hidden` and `counter`, see `batch_norm`.

    Raises:
      ValueError: DeepMind's code has no such model.
    """
    if spec.kind not in _TABLES:
        raise ValueError(f"the released files hold Perceiver IO models, not {spec.kind}")
    if not spec.has_latents:
        raise ValueError(
            f"the released files hold Perceivers; this {spec.kind} has body={spec.body!r}, which "
            "they do not support"
        )
    if spec.encoders != (0,) or spec.processors != (0,) or getattr(spec, "head", None) == "mean":
        raise ValueError(
            "the released files hold Perceiver IO models: one cross-attend, and queries as head; "
            f"this spec has encoders={spec.encoders}, processors={spec.processors}, "
            f"head={getattr(spec, 'head', None)!r}"
        )
    return tuple(_TABLES[spec.kind](spec, history))


def _leaves(source: str, target: str, names: Iterable[str]) -> list[Rule]:
    return [Rule(f"{source}/{name}", f"{target}/{name}") for name in names]


def _linear(source: str, target: str) -> list[Rule]:
    return _leaves(source, target, ("w", "b"))


def _table(source: str, target: str) -> Rule:
    return Rule(f"{source}/pos_embs", f"{target}/table")


def _block(source: str, target: str, norms: dict[str, str]) -> list[Rule]:
    """Rules of one attention block: its norms, four projections, two layers of the MLP."""
    table = []
    for theirs, ours in norms.items():
        table += _leaves(f"{source}/{theirs}", f"{target}/{ours}", ("scale", "offset"))
    for theirs, ours in _PROJECTIONS.items():
        table += _linear(f"{source}/attention/{theirs}", f"{target}/attend/attention/{ours}")
    for theirs, ours in _MLP.items():
        table += _linear(f"{source}/mlp/{theirs}", f"{target}/feed_forward/mlp/{ours}")
    return table


def _encoder(scope: str = "perceiver_encoder") -> list[Rule]:
    layers = "processor/layers/self_attend"
    return [
        _table(f"{scope}/~/trainable_position_encoding", "latents"),
        *_block(f"{scope}/~/cross_attention", "encoder/cross_attend", _CROSS_NORMS),
        *_block(f"{scope}/~/self_attention{{_layer}}", layers, _SELF_NORMS),
    ]


def _decoder(scope: str) -> list[Rule]:
    return _block(f"{scope}/cross_attention", "outputs/decoder/cross_attend", _CROSS_NORMS)


def _image_classifier(spec: specs.ImageClassifier, history: bool) -> list[Rule]:
    decoder = "classification_decoder/~/basic_decoder"
    table = [
        *_encoder(),
        *_decoder(decoder),
        _table(f"{decoder}/~/trainable_position_encoding", "outputs/queries"),
        *_linear(f"{decoder}/output", "outputs/decoder/out"),
    ]
    if spec.stem == "conv1x1":
        stem = "image_preprocessor/~/conv2_d"
        table += [
            Rule(f"{stem}/w", "inputs/project/w", POINTWISE),
            Rule(f"{stem}/b", "inputs/project/b"),
        ]
    if spec.stem == "conv":
        table += _conv_stem(history)
    if spec.positions == "learned":
        scope = "image_preprocessor/~_build_network_inputs"
        table += [
            _table(f"{scope}/trainable_position_encoding", "inputs/positions"),
            *_linear(f"{scope}/position_encoding_projector/linear", "inputs/project_positions"),
        ]
    return table


def _conv_stem(history: bool) -> list[Rule]:
    scope, ours = "image_preprocessor/~/conv2_d_downsample/~", "inputs/stem/batch_norm"
    table = [
        Rule(f"{scope}/conv/w", "inputs/stem/w", KEEP),
        *_leaves(f"{scope}/batchnorm", ours, ("scale", "offset")),
    ]
    kept = ("average", "hidden", "counter") if history else ("average",)
    for ema in ("mean_ema", "var_ema"):
        table += _leaves(f"{scope}/batchnorm/~/{ema}", f"{ours}/~/{ema}", kept)
    return table


def _masked_lm(spec: specs.MaskedLM, history: bool) -> list[Rule]:
    return [
        *_encoder(),
        *_decoder("basic_decoder"),
        _table("basic_decoder/~/trainable_position_encoding", "outputs/queries"),
        Rule("embed/embeddings", "embedding/table"),
        _table("trainable_position_encoding", "inputs/positions"),
        Rule("embedding_decoder/bias", "outputs/b"),
    ]


def _optical_flow(spec: specs.Backbone, history: bool) -> list[Rule]:
    decoder = "flow_decoder/~/basic_decoder"
    return [
        *_encoder(),
        *_decoder(decoder),
        *_linear(f"{decoder}/output", "outputs/decoder/out"),
        *_linear("image_preprocessor/patches_linear", "inputs/project"),
    ]


def _video_autoencoder(spec: specs.Backbone, history: bool) -> list[Rule]:
    decoder = "multimodal_decoder/~/basic_decoder"
    query = "classification_decoder/~/basic_decoder/~/trainable_position_encoding"
    project = {"audio": "audio", "video": "projection", "label": "classification"}
    table = [
        *_encoder("encoder"),
        *_decoder(decoder),
        *_linear(f"{decoder}/output", "outputs/decoder/out"),
        _table(query, "outputs/label/queries"),
    ]
    for ours, theirs in {"audio": "audio", "video": "image", "label": "label"}.items():
        table += [
            _table(f"multimodal_preprocessor/{theirs}_padding", f"inputs/{ours}/padding"),
            _table(f"multimodal_preprocessor/{theirs}_mask_token", f"inputs/{ours}/mask_token"),
            _table(
                f"multimodal_decoder/~decoder_query/{theirs}_padding", f"outputs/{ours}/padding"
            ),
            *_linear(f"{project[ours]}_postprocessor/linear", f"outputs/{ours}/project"),
        ]
    return table


_TABLES: dict[str, Callable] = {
    "image_classifier": _image_classifier,
    "masked_lm": _masked_lm,
    "optical_flow": _optical_flow,
    "video_autoencoder": _video_autoencoder,
}
