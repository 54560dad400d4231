"""Batches of any size, in few shapes."""

import numpy as np
import pytest

import perceiver
from perceiver.pretrained.runner import Runner


@pytest.fixture
def run(image_spec, draw_params):
    model = perceiver.build(image_spec)
    return Runner(model, draw_params(model.init), {}, batch_size=4)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 11])
def test_each_example_is_answered_once_and_in_order(run, rng, size):
    images = rng.standard_normal((size, 5, 7, 3), np.float32)
    together = run.apply({"image": images})
    assert together.shape == (size, 11)
    for image, row in zip(images, together, strict=True):
        np.testing.assert_allclose(run.apply({"image": image[None]})[0], row, atol=1e-5)


def test_few_shapes_are_compiled(run, rng):
    shapes = set()

    def spy(params, state, inputs):
        shapes.add(inputs["image"].shape[0])
        return inputs["image"]

    for size in range(1, 20):
        images = rng.standard_normal((size, 5, 7, 3), np.float32)
        np.testing.assert_array_equal(run.run(spy, {"image": images}), images)
    assert shapes == {1, 2, 4}


def test_outputs_may_be_lists_and_dicts(run):
    images = np.zeros((6, 5, 7, 3), np.float32)
    maps = run.attention_maps({"image": images})
    assert [m.shape for m in maps] == [(6, 1, 13, 35)]
    assert run.encode({"image": images}).shape == (6, 13, 8)


def test_bad_batches_are_named(run, image_spec):
    with pytest.raises(ValueError, match=r"at least one example.*'image': 0"):
        run.apply({"image": np.zeros((0, 5, 7, 3), np.float32)})
    with pytest.raises(ValueError, match=r"images must be \[batch, 5, 7, 3\]"):
        run.apply({"image": np.zeros((2, 5, 8, 3), np.float32)})
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Runner(perceiver.build(image_spec), {}, {}, batch_size=0)
