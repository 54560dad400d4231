"""`perceiver.load` and `perceiver.fresh`."""

import pickle

import jax
import numpy as np
import pytest

import perceiver
from perceiver.kinds import released
from perceiver.weights import hub


@pytest.fixture
def saved(text_spec, tmp_path):
    model = perceiver.fresh(text_spec, seed=4)
    model.save(tmp_path / "model")
    return tmp_path / "model"


def test_weights_arrive_on_the_device_unchanged(saved, text_spec):
    loaded, made = perceiver.load(saved), perceiver.fresh(text_spec, seed=4)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(loaded.params))
    jax.tree.map(np.testing.assert_array_equal, loaded.params, made.params)
    assert loaded.source == str(saved)


def test_how_it_computes_can_be_chosen(saved):
    model = perceiver.load(saved, operands="bfloat16", cross_path="streaming", batch_size=3)
    assert (model.spec.operands, model.spec.cross_path) == ("bfloat16", "streaming")
    assert model.batch_size == 3
    with pytest.raises(ValueError, match="operands='float8' is unknown"):
        perceiver.load(saved, operands="float8")
    with pytest.raises(TypeError, match="load has no argument 'layers'"):
        perceiver.load(saved, layers=3)


def test_images_of_another_size(image_spec, tmp_path):
    perceiver.fresh(image_spec).save(tmp_path)
    assert perceiver.load(tmp_path, image_size=9).spec.image_shape == (9, 9, 3)
    assert perceiver.load(tmp_path, image_size=(4, 6)).spec.image_shape == (4, 6, 3)


def test_a_released_name_is_fetched(saved, monkeypatch):
    fetched = []
    monkeypatch.setattr(hub, "fetch", lambda name: fetched.append(name) or saved)
    assert perceiver.load("deepmind/language-perceiver").kind == "masked_lm"
    assert fetched == ["deepmind/language-perceiver"]


def test_a_source_that_is_nothing_lists_what_could_be():
    with pytest.raises(FileNotFoundError, match=r"neither a file nor a folder(.|\n)*imagenet-conv"):
        perceiver.load("imagenet-forier")


def test_fresh_takes_names_and_specs():
    assert perceiver.fresh(released.MODELS["imagenet-fourier"] | _TINY).kind == "image_classifier"
    with pytest.raises(
        ValueError, match="spec='bert' is unknown; released models: imagenet-fourier"
    ):
        perceiver.fresh("bert")


_TINY = {
    "image_shape": (4, 4, 3),
    "latents": 2,
    "latent_channels": 8,
    "layers": 1,
    "blocks": 1,
    "query_channels": 8,
}


def test_a_model_is_shown_in_a_line_and_pickled(image_spec):
    model = perceiver.fresh(image_spec)
    assert len(repr(model)) < 100
    assert "image_classifier" in repr(model)
    assert len(repr(model.model)) < 3000
    image = np.zeros((1, *model.spec.image_shape), np.float32)
    expected = model({"image": image})
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy({"image": image}), expected)
    assert copy.usage == model.usage
