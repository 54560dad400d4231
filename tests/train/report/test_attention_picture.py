import jax
import numpy as np
import pytest
from PIL import Image

import perceiver
from train.report import attention_picture

SPEC = {
    "kind": "image_classifier",
    "image_shape": (12, 20, 3),
    "classes": 3,
    "latents": 13,
    "latent_channels": 16,
    "layers": 1,
    "self_heads": 2,
    "cross_heads": 1,
    "bands": 3,
    "head": "mean",
    "encoders": (0, 1, 1),
    "processors": (0, 0, 0),
}


@pytest.fixture(scope="module")
def model():
    return perceiver.build(SPEC)


@pytest.fixture(scope="module")
def weights(model):
    return jax.jit(model.init)(jax.random.key(0))


@pytest.fixture
def images(rng):
    return rng.normal(size=(5, 12, 20, 3)).astype("f4")


def test_looks_are_those_of_all_maps_at_once(model, weights, images):
    maps = jax.jit(model.attention_maps)(*weights, {"image": images})
    first, last = attention_picture.collect(model, *weights, images)
    assert (first.name, last.name) == ("first", "last")
    for stage, expected in ((first, maps[0]), (last, maps[-1])):
        expected = np.asarray(expected, np.float64).mean(axis=1)  # [B, N, M]
        np.testing.assert_allclose(stage.mean, expected.mean(axis=1), rtol=1e-4)
        entropy = -(expected * np.log(expected)).sum(axis=-1).mean(axis=0)
        sharpest = np.argsort(entropy)[: attention_picture.LATENTS]
        np.testing.assert_allclose(entropy[list(stage.shown)], entropy[sharpest], rtol=1e-6)
        np.testing.assert_allclose(stage.maps, expected[:, list(stage.shown)], rtol=1e-4)
        assert stage.latents == 13


def test_stages_between_take_no_memory():
    def temporary_bytes(stages):
        sharing = {"encoders": tuple(range(stages)), "processors": (0,) * stages}
        model = perceiver.build(SPEC | sharing | {"image_shape": (64, 64, 3), "latents": 64})
        params, state = jax.eval_shape(model.init, jax.random.key(0))
        inputs = {"image": jax.ShapeDtypeStruct((1, 64, 64, 3), "f4")}
        run = jax.jit(attention_picture._summarise(model))
        memory = run.lower(params, state, inputs).compile().memory_analysis()
        return memory.temp_size_in_bytes

    one_map = 64 * 64 * 64 * 4
    assert temporary_bytes(7) < temporary_bytes(2) + one_map / 2


@pytest.mark.parametrize("changes", [{}, {"encoders": (0,), "processors": (0,)}, {"stem": "conv"}])
def test_pictures_of_all_forms(changes, tmp_path, rng):
    model = perceiver.build(SPEC | changes)
    weights = jax.jit(model.init)(jax.random.key(0))
    images = rng.random(size=(2, 12, 20, 3)).astype("f4")
    stages = attention_picture.collect(model, *weights, images)
    path = attention_picture.draw(tmp_path / "out" / "attention.png", images, stages)
    with Image.open(path) as picture:
        columns = 1 + 7 * len(stages)
        assert picture.width == pytest.approx(1.15 * columns * 110, abs=2)
    if "stem" in changes:
        assert stages[0].mean.shape == (2, 3 * 5)


def test_a_model_without_latents_has_nothing_to_show():
    class Network:
        def attention_maps(self, params, net_state, inputs):
            return []

    assert attention_picture.collect(Network(), {}, {}, np.zeros((2, 5, 7, 3), "f4")) == []
