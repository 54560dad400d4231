"""Permuted inputs (Perceiver, table 2): another order of the elements, and the same answers."""

import json

import haiku as hk
import jax
import numpy as np
import pytest

import perceiver
from perceiver.inputs import permutation
from perceiver.kinds import builders, specs
from perceiver.kinds.released import MODELS
from perceiver.summary import byte_array_shapes, flops
from perceiver.weights import native

SEED = 3
KINDS = {
    "fourier": {},
    "learned": {"stem": "conv1x1", "stem_channels": 3, "positions": "learned"},
    "stem": {"stem": "conv", "stem_channels": 3, "image_shape": (11, 17, 3)},
    "classical": {"head": "mean", "encoders": (0, 1, 1), "processors": (0, 0, 0)},
}
PATHS = ("plain", "shared", "streaming")
BY_DAY = ("shared", "streaming", "plain", "shared")  # the path of each kind; the others by night


@pytest.fixture(params=KINDS)
def models(request, image_spec):
    """(model, the same with permuted inputs)"""
    spec = image_spec | {"position_channels": 5} | KINDS[request.param]
    return perceiver.build(spec), perceiver.build(spec | {"permutation": SEED})


def segment_of(model, params, state, image):
    """Returns the segment that a model makes of an image."""

    def run(x):
        parts = builders.KINDS[model.spec.kind].parts(model.spec)
        return parts.preprocess({"image": x}, is_training=False).segments[0]

    return jax.jit(hk.transform_with_state(run).apply)(params, state, None, image)[0]


def drawn(model, draw_params, rng):
    params = draw_params(model.init)
    state = jax.tree.map(
        lambda x: np.ones(x.shape, x.dtype), jax.eval_shape(model.init, jax.random.key(0))[1]
    )
    image = rng.standard_normal((2, *model.spec.image_shape)).astype(np.float32)
    return params, state, {"image": image}


def test_the_order_never_changes():
    np.testing.assert_array_equal(permutation.order(7, 1), [6, 2, 1, 0, 4, 3, 5])
    assert sorted(permutation.order(35, SEED)) == list(range(35))
    assert not np.array_equal(permutation.order(35, SEED), permutation.order(35, SEED + 1))


@pytest.mark.parametrize(
    ("models", "path"),
    [
        pytest.param(kind, path, marks=() if path == usual else pytest.mark.slow)
        for kind, usual in zip(KINDS, BY_DAY, strict=True)
        for path in PATHS
    ],
    indirect=["models"],
)
def test_logits_are_those_of_the_unpermuted(models, path, draw_params, rng):
    straight, permuted = (
        perceiver.build(model.spec.to_dict() | {"cross_path": path}) for model in models
    )
    params, state, inputs = drawn(straight, draw_params, rng)
    expected, actual = (
        jax.jit(model.apply)(params, state, None, inputs)[0] for model in (straight, permuted)
    )
    assert not np.array_equal(actual, expected)  # sums in another order: it is not skipped
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_content_and_positions_move_together(models, draw_params, rng):
    straight, permuted = models
    params, state, inputs = drawn(straight, draw_params, rng)
    expected = segment_of(straight, params, state, inputs["image"]).dense()
    segment = segment_of(permuted, params, state, inputs["image"])
    order = np.random.RandomState(SEED).permutation(expected.shape[1])
    np.testing.assert_array_equal(segment.dense(), expected[:, order])
    assert isinstance(segment.positions, perceiver.Dense)
    assert not isinstance(segment.positions, perceiver.SeparableFourier)


def test_attention_maps_are_of_the_inputs_as_given(models, draw_params, rng):
    straight, permuted = models
    params, state, inputs = drawn(straight, draw_params, rng)
    expected, actual = (
        jax.jit(model.attention_maps)(params, state, inputs) for model in (straight, permuted)
    )
    assert len(actual) == len(straight.spec.encoders)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
        assert not np.allclose(one, permutation.undo(other, SEED), atol=1e-3)


def test_shapes_parameters_and_flops_are_unchanged(models):
    straight, permuted = models
    shapes = [jax.eval_shape(model.init, jax.random.key(0)) for model in models]
    assert shapes[0] == shapes[1]
    assert flops.forward(straight.spec) == flops.forward(permuted.spec)
    one, other = (byte_array_shapes(model).segments[0] for model in models)
    assert one.content.shape == other.content.shape


def test_it_survives_json_and_export(image_spec, draw_saved, tmp_path):
    saved = draw_saved(image_spec | {"permutation": SEED})
    spec = saved.model.spec
    assert specs.parse(json.loads(json.dumps(spec.to_dict()))) == spec
    native.save(tmp_path, saved.model, saved.params, saved.state, saved.usage)
    assert native.load(tmp_path).model.spec.permutation == SEED


def test_a_model_explains_that_there_is_no_grid():
    spec = MODELS["imagenet-fourier"] | {"layers": 1, "permutation": SEED}
    (choice,) = perceiver.build(spec).explain()["stage 1"].choices
    assert choice.path == "shared"
    assert choice.reason.startswith("a permuted grid is treated as no grid")


def test_rows_and_columns_cannot_be_forced(image_spec):
    model = perceiver.build(image_spec | {"permutation": SEED, "cross_path": "separable"})
    with pytest.raises(ValueError, match="'image' with Permuted positions"):
        jax.eval_shape(model.init, jax.random.key(0))


@pytest.mark.parametrize(
    ("seed", "message"), [(-1, "must not be negative"), (2**32, "must be at most 4294967295")]
)
def test_a_seed_out_of_range_is_refused(image_spec, seed, message):
    with pytest.raises(ValueError, match=f"permutation={seed} {message}"):
        specs.parse(image_spec | {"permutation": seed})
