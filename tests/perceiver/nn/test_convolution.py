"""Convolutions over blocks and pooling by views, against XLA's own."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver
from perceiver.kinds.released import MODELS
from perceiver.nn import convolution

TOLERANCE = 1e-5  # relative to the largest entry


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def plain(x, w, stride):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=layout)


def assert_close(got, want):
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * float(jnp.abs(want).max()))


@pytest.mark.parametrize("window", [(3, 3), (4, 5), (7, 7)])
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_strided_convolution_of_pixels(window, stride, channels):
    x, w = draw(2, 12, 18, channels), draw(*window, channels, 5, seed=1)
    assert_close(convolution.convolve(x, w, stride), plain(x, w, stride))
    weights = draw(*plain(x, w, stride).shape, seed=2)

    def gradient(function):
        return jax.grad(lambda x, w: jnp.vdot(weights, function(x, w, stride)), (0, 1))(x, w)

    for got, want in zip(gradient(convolution.convolve), gradient(plain), strict=True):
        assert_close(got, want)


def convolutions(x, w):
    """Strides of the convolutions that XLA is given."""
    jaxpr = jax.make_jaxpr(lambda x, w: convolution.convolve(x, w, 2))(x, w)
    return [
        equation.params["window_strides"]
        for equation in jaxpr.eqns
        if equation.primitive.name == "conv_general_dilated"
    ]


def test_blocks_are_used_for_pixels_and_where_they_fit():
    w = draw(7, 7, 3, 5)
    assert convolutions(draw(2, 12, 18, 3), w) == [(1, 1)]
    assert convolutions(draw(2, 13, 18, 3), w) == [(2, 2)]  # an odd side
    assert convolutions(draw(2, 12, 18, 7), draw(7, 7, 7, 5)) == [(2, 2)]  # many channels
    assert convolutions(draw(2, 12, 18, 3), draw(1, 1, 3, 5)) == [(2, 2)]  # nothing to gain


@pytest.mark.parametrize("sides", [(12, 18), (13, 17), (1, 2)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_max_pool(sides, dtype):
    x = draw(2, *sides, 3).astype(dtype)

    def theirs(x):
        return hk.max_pool(x, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")

    np.testing.assert_array_equal(convolution.max_pool(x), theirs(x))
    if dtype == jnp.float32:  # no two entries are equal, so that there is one gradient
        weights = draw(*theirs(x).shape, seed=1)
        got, want = (
            jax.grad(lambda x, f=f: jnp.vdot(weights, f(x)))(x)
            for f in (convolution.max_pool, theirs)
        )
        assert_close(got, want)


def test_equal_entries_share_the_gradient_of_a_pool():
    gradient = jax.grad(lambda x: convolution.max_pool(x).sum())(jnp.ones((1, 4, 4, 1)))
    assert float(gradient.sum()) == 4
    assert float(gradient.min()) >= 0


def test_a_stem_of_any_window_and_stride():
    spec = {
        "kind": "image_classifier",
        "image_shape": (24, 37, 3),
        "classes": 7,
        "stem": "conv",
        "stem_channels": 5,
        "stem_window": 9,
        "stem_stride": 4,
        "latents": 3,
        "latent_channels": 8,
        "layers": 1,
        "self_heads": 2,
        "query_channels": 8,
    }
    model = perceiver.build(spec)
    assert model.spec.grid == (3, 5)  # 24 / 8, 37 / 8 rounded up
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    assert params["inputs/stem"]["w"].shape == (9, 9, 3, 5)
    maps = jax.eval_shape(model.attention_maps, params, state, model.example_inputs(2))
    assert maps[0].shape == (2, 1, 3, 15)


@pytest.mark.parametrize("field", ["stem_window", "stem_stride"])
def test_a_stem_of_no_size_is_refused(field):
    with pytest.raises(ValueError, match=f"{field}=0 must be positive"):
        perceiver.build(MODELS["imagenet-conv"] | {field: 0})
