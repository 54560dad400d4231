"""Names in the state dicts of Hugging Face's Perceiver classes -> ours, by kind of model.

PyTorch keeps a linear layer's weight as [out, in], a convolution's as [out, in, height, width] and
a batch norm's vectors as [C]; ours are [in, out], [height, width, in, out] and [1, 1, 1, C].
"""

from collections.abc import Callable

import numpy as np

from perceiver.kinds import specs
from perceiver.weights.huggingface.classes import check_body, transformer_of
from perceiver.weights.huggingface.layers import linear, norm
from perceiver.weights.mapping import Rule, Transform

# The hub's 7x7 kernel was made from DeepMind's [H, W, I, O] by reversing all axes, so its height
# and width are swapped: read as PyTorch reads it, it is DeepMind's kernel transposed. "hub" undoes
# that; "torch" is the layout in which PyTorch computes with the kernel the right way round.
CONV_KERNELS = {
    "hub": Transform(
        read=lambda w: np.transpose(w, (3, 2, 1, 0)), write=lambda w: np.transpose(w, (3, 2, 1, 0))
    ),
    "torch": Transform(
        read=lambda w: np.transpose(w, (2, 3, 1, 0)), write=lambda w: np.transpose(w, (3, 2, 0, 1))
    ),
}
POINTWISE = Transform(  # [out, in, 1, 1] <-> [in, out]
    read=lambda w: w[:, :, 0, 0].T if w.shape[2:] == (1, 1) else w,
    write=lambda w: w.T[:, :, None, None],
)
CHANNELS = Transform(  # [C] <-> [1, 1, 1, C]
    read=lambda x: x[None, None, None], write=lambda x: x.reshape(x.shape[-1])
)

BATCHES = "perceiver.input_preprocessor.convnet.batchnorm.num_batches_tracked"

_PROJECTIONS = {
    "attention.self.query": "attend/attention/query",
    "attention.self.key": "attend/attention/key",
    "attention.self.value": "attend/attention/value",
    "attention.output.dense": "attend/attention/out",
    "mlp.dense1": "feed_forward/mlp/hidden",
    "mlp.dense2": "feed_forward/mlp/out",
}
_SELF_NORMS = {
    "attention.self.layernorm1": "attend/norm",
    "layernorm": "feed_forward/norm",
}
_CROSS_NORMS = _SELF_NORMS | {"attention.self.layernorm2": "attend/norm_inputs"}


def rules(spec: specs.Spec, conv_kernel: str = "torch") -> tuple[Rule, ...]:
    """Returns the table of a model: its parameters, and the averages of its state.

    Args:
      spec: of the model.
      conv_kernel: layout of the 7x7 convolution, a key of CONV_KERNELS.

    Raises:
      ValueError: Hugging Face has no such model, or conv_kernel is unknown.
    """
    transformer = transformer_of(spec)
    if transformer is not None:
        return tuple(transformer.rules(spec))
    if spec.kind not in _TABLES:
        raise ValueError(f"Hugging Face has Perceiver IO models only, not {spec.kind}")
    check_body(spec)
    if spec.encoders != (0,) or spec.processors != (0,) or getattr(spec, "head", None) == "mean":
        raise ValueError(
            "Hugging Face's classes are Perceiver IO models: one cross-attend, and queries as "
            f"head; this spec has encoders={spec.encoders}, processors={spec.processors}, "
            f"head={getattr(spec, 'head', None)!r}"
        )
    if spec.kind == "text_classifier" and (spec.head != "linear" or spec.tasks):
        raise ValueError(
            "Hugging Face's class of text classifiers has one task, and head='linear'; this has "
            f"tasks={spec.tasks}, head={spec.head!r}"
        )
    if conv_kernel not in CONV_KERNELS:
        raise ValueError(f"conv_kernel={conv_kernel!r} is unknown; choose 'hub' or 'torch'")
    return (
        Rule("perceiver.embeddings.latents", "latents/table"),
        *_block("perceiver.encoder.cross_attention", "encoder/cross_attend", _CROSS_NORMS),
        *_block(
            "perceiver.encoder.self_attends.{layer}", "processor/layers/self_attend", _SELF_NORMS
        ),
        *_TABLES[spec.kind](spec, conv_kernel),
    )


def _block(source: str, target: str, norms: dict[str, str]) -> list[Rule]:
    """Rules of one attention block: its norms, four projections, two layers of the MLP."""
    table = []
    for theirs, ours in norms.items():
        table += norm(f"{source}.{theirs}", f"{target}/{ours}")
    for theirs, ours in _PROJECTIONS.items():
        table += linear(f"{source}.{theirs}", f"{target}/{ours}")
    return table


def _decoder(scope: str) -> list[Rule]:
    target = "outputs/decoder/cross_attend"
    return _block(f"{scope}.decoding_cross_attention", target, _CROSS_NORMS)


def _projecting_decoder() -> list[Rule]:
    scope = "perceiver.decoder.decoder"
    return _decoder(scope) + linear(f"{scope}.final_layer", "outputs/decoder/out")


def _image_classifier(spec: specs.ImageClassifier, conv_kernel: str) -> list[Rule]:
    scope = "perceiver.input_preprocessor"
    queries = "perceiver.decoder.decoder.output_position_encodings.position_embeddings"
    table = [*_projecting_decoder(), Rule(queries, "outputs/queries/table")]
    if spec.stem == "conv1x1":
        table += [
            Rule(f"{scope}.convnet_1x1.weight", "inputs/project/w", POINTWISE),
            Rule(f"{scope}.convnet_1x1.bias", "inputs/project/b"),
        ]
    if spec.stem == "conv":
        theirs, ours = f"{scope}.convnet.batchnorm", "inputs/stem/batch_norm"
        table += [
            Rule(f"{scope}.convnet.conv.weight", "inputs/stem/w", CONV_KERNELS[conv_kernel]),
            *norm(theirs, ours, CHANNELS),
            Rule(f"{theirs}.running_mean", f"{ours}/~/mean_ema/average", CHANNELS),
            Rule(f"{theirs}.running_var", f"{ours}/~/var_ema/average", CHANNELS),
            Rule(BATCHES, None),  # see batch_norm
        ]
    if spec.positions == "learned":
        positions = f"{scope}.position_embeddings.position_embeddings"
        table += [
            Rule(positions, "inputs/positions/table"),
            *linear(f"{scope}.positions_projection", "inputs/project_positions"),
        ]
    return table


def _text(decoder: str) -> list[Rule]:
    """Rules of a text's inputs, and of the decoder at a scope and its queries."""
    scope = "perceiver.input_preprocessor"
    return [
        *_decoder(decoder),
        Rule(f"{decoder}.output_position_encodings.position_embeddings", "outputs/queries/table"),
        Rule(f"{scope}.embeddings.weight", "embedding/table"),
        Rule(f"{scope}.position_embeddings.weight", "inputs/positions/table"),
        Rule(f"{scope}.position_ids", None),  # 0, 1, 2, ...
    ]


def _masked_lm(spec: specs.MaskedLM, conv_kernel: str) -> list[Rule]:
    return [*_text("perceiver.decoder"), Rule("embedding_decoder.bias", "outputs/b")]


def _text_classifier(spec: specs.TextClassifier, conv_kernel: str) -> list[Rule]:
    scope = "perceiver.decoder.decoder"
    return [*_text(scope), *linear(f"{scope}.final_layer", "outputs/head")]


def _optical_flow(spec: specs.Backbone, conv_kernel: str) -> list[Rule]:
    project = "perceiver.input_preprocessor.conv_after_patches"
    return [*_projecting_decoder(), *linear(project, "inputs/project")]


def _video_autoencoder(spec: specs.Backbone, conv_kernel: str) -> list[Rule]:
    inputs, decoder = "perceiver.input_preprocessor", "perceiver.decoder"
    label = f"{decoder}.modalities.label.decoder.output_position_encodings.position_embeddings"
    table = [*_projecting_decoder(), Rule(label, "outputs/label/queries/table")]
    for ours, theirs in {"audio": "audio", "video": "image", "label": "label"}.items():
        project = f"perceiver.output_postprocessor.modalities.{theirs}.classifier"
        table += [
            Rule(f"{inputs}.padding.{theirs}", f"inputs/{ours}/padding/table"),
            Rule(f"{inputs}.mask.{theirs}", f"inputs/{ours}/mask_token/table"),
            Rule(f"{decoder}.padding.{theirs}", f"outputs/{ours}/padding/table"),
            *linear(project, f"outputs/{ours}/project"),
        ]
    return table


_TABLES: dict[str, Callable] = {
    "image_classifier": _image_classifier,
    "masked_lm": _masked_lm,
    "text_classifier": _text_classifier,
    "optical_flow": _optical_flow,
    "video_autoencoder": _video_autoencoder,
}
