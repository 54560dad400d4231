"""A Transformer in a Perceiver's place: the same inputs, layers and heads, without latents."""

import jax
import numpy as np
import pytest

import perceiver
from perceiver.kinds import released, specs
from perceiver.summary import flops
from perceiver.weights import deepmind, inspection, native
from perceiver.weights.huggingface import export, names

CLOSE = 1e-5
TEXT = {
    "kind": "masked_lm",
    "max_length": 11,
    "embedding_channels": 6,
    "latents": 5,
    "latent_channels": 8,
    "layers": 2,
    "self_heads": 2,
    "cross_heads": 2,
    "query_heads": 2,
    "query_qk_channels": 4,
    "body": "transformer",
}
LABELS = {**TEXT, "kind": "text_classifier", "classes": 3}


def text(rng, real):
    """One text of `real` tokens, and the same with four tokens of padding."""
    tokens = rng.integers(6, 262, size=(1, real + 4)).astype(np.int32)
    mask = np.arange(real + 4)[None] < real
    padded = {"tokens": tokens, "input_mask": mask}
    return {name: x[:, :real] for name, x in padded.items()}, padded


@pytest.mark.parametrize("spec", [TEXT, LABELS], ids=["masked_lm", "text_classifier"])
def test_padding_is_never_read(rng, draw_saved, spec):
    short, padded = text(rng, real=7)
    saved = draw_saved(spec)
    model = perceiver.build(spec)
    exact = jax.jit(model.apply)(saved.params, {}, None, short)[0]

    @jax.jit
    def run(params, padded):
        features = model.encode(params, {}, padded)
        y, _ = model.apply(params, {}, None, padded)
        return y, features, model.decode(params, {}, features, padded)

    y, features, decoded = run(saved.params, padded)
    y = y[:, :7] if spec is TEXT else y
    np.testing.assert_allclose(y, exact, atol=CLOSE)
    # and by the two halves of it
    assert features.shape == (1, 11, 8)  # of every token
    np.testing.assert_allclose(decoded[:, :7] if spec is TEXT else decoded, exact, atol=CLOSE)


def test_decoding_by_queries_alone_cannot_know_the_padding(rng, draw_saved):
    _, padded = text(rng, real=7)
    model, params = perceiver.build(TEXT), draw_saved(TEXT).params
    features = np.zeros((1, 11, 8), np.float32)
    queries = model.queries(params, {}, features, padded)
    with pytest.raises(ValueError, match=r"body=.transformer. .* use `decode`"):
        model.decode_queries(params, {}, features, queries)


@pytest.mark.parametrize(
    "name",
    [
        "perceiver-imagenet-4",  # of several stages
        "imagenet-conv",
        "masked-lm-bytes",
        "optical-flow",
        "video-autoencoder",
        "audioset-mel",
    ],
)
def test_every_kind_takes_it_by_one_field(name):
    spec = specs.parse({**released.MODELS[name], "body": "transformer"})
    model = perceiver.build(spec)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    assert not any(path.startswith(("latents", "encoder")) for path in params)
    w = params["project"]["w"]
    elements, channels = flops.byte_array(spec)
    assert w.shape == (channels, spec.latent_channels)
    features = jax.eval_shape(model.encode, params, state, model.example_inputs(2))
    assert features.shape == (2, elements, spec.latent_channels)
    rows = flops.forward(spec)
    assert not any(row.part == "cross-attends" for row in rows)
    assert sum(r.times for r in rows if r.operation == "logits" and r.part == "processors") == (
        spec.layers * spec.blocks * len(spec.processors)
    )


def test_depth_counts_every_applied_layer():
    spec = specs.parse({**TEXT, "blocks": 3, "encoders": (0, 1), "processors": (0, 0)})
    assert spec.depth == 12
    deep = specs.parse({**TEXT, "layers": 500, "residual": "deepnorm"})
    np.testing.assert_allclose(deep.residual_connection.alpha, 1000**0.25)


def test_choices_are_checked():
    with pytest.raises(ValueError, match="body='rnn' is unknown; choose one of perceiver, trans"):
        specs.parse({**TEXT, "body": "rnn"})
    with pytest.raises(ValueError, match="residual='rezero' is unknown; choose one of pre_norm"):
        specs.parse({**TEXT, "residual": "rezero"})


def test_inputs_of_a_transformer_are_not_split():
    mesh = jax.make_mesh((8,), ("sequence",))
    with pytest.raises(ValueError, match="has no cross-attends"):
        perceiver.build(TEXT, sequence=perceiver.Sequence(mesh, "sequence"))


@pytest.mark.parametrize("rules", [names.rules, deepmind.rules])
def test_foreign_formats_refuse_it_by_name(rules):
    spec = specs.parse(TEXT)
    with pytest.raises(ValueError, match=r"this masked_lm has body='transformer', which they do"):
        rules(spec)
    with pytest.raises(
        ValueError, match=r"body='transformer', which they do not support: save it as"
    ):
        export.config_of(spec, {})


def test_what_layers_share_is_told():
    assert (
        specs.parse(TEXT).network
        == "2 self-attends (2 heads, pre_norm) of 8 channels on all elements"
    )
    shared = specs.parse({**TEXT, "blocks": 3, "self_heads": 1}).network
    assert shared.startswith("6 self-attends (1 head, pre_norm)")
    assert shared.endswith("on all elements, of which 2 have weights of their own")


@pytest.mark.parametrize("spec", [TEXT, LABELS], ids=["masked_lm", "text_classifier"])
def test_an_exported_model_is_inspected(spec, draw_saved, tmp_path):
    saved = draw_saved(spec)
    native.save(tmp_path, saved.model, saved.params, {}, {})
    shown = inspection.render(inspection.inspect(tmp_path))
    assert "network     2 self-attends (2 heads, pre_norm) of 8 channels" in shown
    assert "latents" not in shown
