"""Which path is taken, and that it is said."""

import jax
import jax.numpy as jnp
import pytest

import perceiver
from perceiver import cross_attention
from perceiver.cross_attention import FEW_WEIGHTS, Sizes
from perceiver.kinds.released import MODELS
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.positions import Dense, PerExample, SeparableFourier


def segment(dims, positions=None, channels=3, name="inputs"):
    return Segment(jax.ShapeDtypeStruct((2, *dims, channels), jnp.float32), positions, name=name)


def fourier(dims):
    return SeparableFourier.of_grid(dims, bands=64)


def choose(*segments, heads=1, channels=256, queries=512, drops=False, path="auto"):
    sizes = Sizes(queries=queries, heads=heads, qk_channels=channels, v_channels=channels)
    return cross_attention.choose(ByteArray(segments), sizes, drops=drops, path=path)


@pytest.mark.parametrize("dims", [(2048,), (48, 48), (16, 12, 12)])
def test_grids_of_fourier_positions_are_separable(dims):
    (choice,) = choose(segment(dims, fourier(dims))).choices
    assert choice.path == "separable"
    assert "x".join(map(str, dims)) in choice.reason


def test_learned_and_given_positions_are_shared():
    for positions in (Dense(jnp.zeros((2048, 8))), PerExample(jnp.zeros((2, 2048, 8))), None):
        assert choose(segment((2048,), positions)).choices[0].path == "shared"


def test_many_narrow_heads_stream():
    (choice,) = choose(segment((8192,), channels=768), heads=8, channels=256).choices
    assert choice.path == "streaming"
    assert "8 heads are too narrow" in choice.reason


def test_heads_of_a_grid_are_absorbed_all_the_same():
    dims = (64, 64)
    assert choose(segment(dims, fourier(dims)), heads=8).choices[0].path == "separable"


@pytest.mark.parametrize(("more", "path"), [(0, "plain"), (1, "shared")])
def test_few_weights_are_plain(more, path):
    size = FEW_WEIGHTS // 64 + more
    assert choose(segment((size,)), queries=64, channels=16).choices[0].path == path


@pytest.mark.parametrize(("content", "path"), [(2, "separable"), (200, "plain")])
def test_few_weights_are_not_plain_where_keys_and_values_are_most_of_the_work(content, path):
    """Of 200 channels of content and 6 of positions, the other paths save next to nothing."""
    positions = SeparableFourier.of_grid((24, 20), bands=1 if content == 200 else 50)
    plan = choose(segment((24, 20), positions, content), heads=8, queries=32)
    assert plan.choices[0].path == path


def test_dropout_of_weights_is_plain_and_no_other_path_may_be_forced():
    assert choose(segment((4096,)), drops=True).is_plain
    with pytest.raises(ValueError, match=r"path 'shared' never forms the attention weights"):
        choose(segment((4096,)), drops=True, path="shared")


def test_each_segment_has_its_own_path():
    dims = (32, 32)
    plan = choose(
        segment(dims, fourier(dims), name="image"), segment((5,), channels=261, name="label")
    )
    assert [c.path for c in plan.choices] == ["separable", "shared"]
    assert str(plan).startswith("image (1,024 elements): separable, Fourier positions of a 32x32")
    assert "; label (5 elements): shared" in str(plan)


def test_a_forced_path_that_cannot_serve_says_so():
    table = segment((48, 48), Dense(jnp.zeros((2304, 8))), name="image")
    message = r"'separable' does not apply to segment 'image' with Dense positions.*use path='auto'"
    with pytest.raises(ValueError, match=message):
        choose(table, path="separable")
    assert choose(table, path="streaming").choices[0].reason == "as requested"


def test_an_unknown_path_is_refused():
    with pytest.raises(ValueError, match=r"unknown path 'fast'; choose one of auto, plain"):
        choose(segment((5,)), path="fast")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("imagenet-fourier", "separable"),
        ("imagenet-learned", "shared"),
        ("imagenet-conv", "separable"),
        ("perceiver-imagenet", "separable"),
        ("masked-lm-bytes", "streaming"),
    ],
)
def test_a_model_explains_its_paths(name, path):
    spec = MODELS[name] | {"layers": 1}
    plans = perceiver.build(spec).explain()
    stages = [f"stage {i + 1}" for i in range(len(spec.get("encoders", (0,))))]
    decoders = [] if spec.get("head") == "mean" else ["decoder"]
    assert list(plans) == stages + decoders
    assert {choice.path for stage in stages for choice in plans[stage].choices} == {path}


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("imagenet-fourier", {"decoder": "plain"}),
        ("masked-lm-bytes", {"decoder": "plain"}),
        ("optical-flow", {"decoder": "separable"}),
        (
            "video-autoencoder",
            {"decoder audio": "plain", "decoder video": "separable", "decoder label": "plain"},
        ),
    ],
)
def test_a_model_explains_its_decoder(name, paths):
    plans = perceiver.build(MODELS[name] | {"layers": 1}).explain()
    found = {k: plan.choices[0].path for k, plan in plans.items() if k.startswith("decoder")}
    assert found == paths


def test_a_model_of_several_segments_explains_each():
    plans = perceiver.build(MODELS["video-autoencoder"] | {"layers": 1}).explain()
    paths = {choice.segment: choice.path for choice in plans["stage 1"].choices}
    assert paths == {"audio": "separable", "video": "separable", "label": "shared"}


def test_the_call_logs_its_path(caplog):
    spec = MODELS["imagenet-fourier"] | {"layers": 1, "image_shape": (40, 40, 3)}
    model = perceiver.build(spec)
    with caplog.at_level("INFO", logger="perceiver.model.cross_attend"):
        jax.eval_shape(model.init, jax.random.key(0))
    assert "encoder/cross_attend/attend/attention: image (1,600 elements): separable" in caplog.text


def test_a_model_with_a_forced_path_that_cannot_serve_does_not_start():
    model = perceiver.build(MODELS["imagenet-learned"] | {"layers": 1, "cross_path": "separable"})
    with pytest.raises(ValueError, match="does not apply to segment 'image'"):
        jax.eval_shape(model.init, jax.random.key(0))


def test_the_norm_of_the_inputs_is_computed_once_for_all_stages():
    spec = MODELS["perceiver-imagenet"] | {"image_shape": (40, 40, 3), "layers": 1, "latents": 16}
    model = perceiver.build(spec)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    jaxpr = jax.make_jaxpr(lambda *a: model.apply(*a)[0])(
        params, state, None, model.example_inputs(1)
    )
    # the norm of latents is of another shape
    norms = [e for e in jaxpr.eqns if e.primitive.name == "rsqrt"]
    assert sum(e.outvars[0].aval.shape in ((1, 40, 40), (1, 1600)) for e in norms) == 1
