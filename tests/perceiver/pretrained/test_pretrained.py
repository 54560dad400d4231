"""What `perceiver.load` returns: same numbers as the model, whatever form inputs have."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

import perceiver
from perceiver.media import images

LABELS = ["ant", "bee", "cat"]
SPEC = {
    "kind": "image_classifier",
    "image_shape": (8, 12, 3),
    "classes": 3,
    "bands": 3,
    "latents": 5,
    "latent_channels": 16,
    "layers": 1,
    "self_heads": 2,
    "query_channels": 16,
}


@pytest.fixture(scope="module")
def model(draw_model):
    made = draw_model(SPEC)
    return dataclasses.replace(made, usage=made.usage | {"labels": LABELS}, batch_size=2)


@pytest.fixture
def pictures(rng):
    shapes = [(8, 12, 3), (31, 17, 3), (40, 90, 3)]
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


def assert_same(found, expected):
    """Answers are the same up to the rounding of batches of other sizes."""
    assert [label for label, _ in found] == [label for label, _ in expected]
    np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-5)


def test_probabilities_are_the_models_own(model, pictures):
    ((best, *_),) = model.classify(pictures[1:2], top_k=3)
    picture = images.to_pil(pictures[1], 3)
    box = images.central_box(picture, 224 / 256, aspect=12 / 8)
    pixels = images.resize(picture, (8, 12), box)
    image = images.normalise(pixels, images.IMAGENET_MEAN, images.IMAGENET_STD)[None]
    logits, _ = model.model.apply(model.params, model.state, None, {"image": image})
    expected = np.asarray(jax.nn.softmax(logits))[0]
    assert best == (LABELS[expected.argmax()], pytest.approx(expected.max(), abs=1e-6))


def test_one_picture_gives_one_answer_several_a_list(model, pictures, tmp_path):
    file = tmp_path / "picture.png"
    Image.fromarray(pictures[2]).save(file)
    alone = model.classify(pictures[2])
    assert len(alone) == 3
    for same in (file, str(file), file.read_bytes(), Image.open(file)):
        assert model.classify(same) == alone
    several = model.classify(pictures, top_k=9)
    assert_same(several[2], alone)
    assert [len(labels) for labels in several] == [3, 3, 3]
    for labels in several:
        values = [p for _, p in labels]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=1e-5)
    batch = np.stack([pictures[0]] * 3)
    assert model.classify(batch) == model.classify(list(batch))


def test_raw_inputs_give_raw_outputs(model, rng):
    image = rng.standard_normal((5, 8, 12, 3), np.float32)
    expected, _ = model.model.apply(model.params, model.state, None, {"image": image})
    np.testing.assert_allclose(model({"image": image}), expected, atol=1e-5)


def test_latents_are_pooled_as_asked(model, pictures):
    latents = model.embed(pictures, pool=None)
    assert latents.shape == (3, 5, 16)
    np.testing.assert_allclose(model.embed(pictures), latents.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(model.embed(pictures, pool=np.max), latents.max(axis=1), atol=1e-6)


def test_attention_has_the_pictures_shape_and_sums_to_one(model, pictures):
    (maps,) = model.attention_maps(pictures)
    assert maps["image"].shape == (3, 1, 5, 8, 12)
    np.testing.assert_allclose(maps["image"].sum(axis=(-2, -1)), 1, atol=1e-5)


def test_texts_have_attention_and_embeddings(text_spec, draw_model):
    model = draw_model(text_spec | {"max_length": 200})
    (maps,) = model.attention_maps(["one", "another"])
    assert maps["text"].shape == (2, 2, 5, 64)
    assert not maps["text"][0, :, :, 3:].any()  # padding is not attended to
    together = model.embed(["one", "x" * 99])
    np.testing.assert_allclose(together[0], model.embed("one")[0], atol=1e-5)


def test_the_config_builds_the_same_model(model):
    assert perceiver.build(model.config).spec == model.spec
    assert model.kind == "image_classifier"


def test_another_size_is_another_object(model, pictures):
    larger = model.resized(10, 14)
    assert larger.spec.image_shape == (10, 14, 3)
    assert model.spec.image_shape == (8, 12, 3)
    assert len(larger.classify(pictures[0])) == 3


@pytest.mark.parametrize("task", ["fill_mask", "flow", "autoencode"])
def test_a_task_of_another_kind_is_refused(model, task):
    arguments = ("x", "y") if task == "flow" else ("x",)
    with pytest.raises(
        ValueError, match=f"kind image_classifier, which does not support {task}; it supports clas"
    ):
        getattr(model, task)(*arguments)


def test_what_is_saved_is_loaded(model, pictures, tmp_path):
    model.save(tmp_path / "saved")
    again = perceiver.load(tmp_path / "saved")
    assert_same(again.classify(pictures[1]), model.classify(pictures[1]))
    assert again.usage == model.usage


def test_nothing_given_is_said(model):
    with pytest.raises(ValueError, match="give the inputs of classify"):
        model.embed()
