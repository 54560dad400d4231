"""Models at another image size: positions recomputed, or interpolated."""

import jax
import numpy as np
import pytest

import perceiver
from perceiver.kinds import specs
from perceiver.kinds.resize import resize
from perceiver.nn.positions import SeparableFourier


def test_fourier_positions_keep_the_frequencies_of_training(image_spec):
    spec, params = resize(specs.parse(image_spec), {}, (8, 11))
    assert spec.image_shape == (8, 11, 3)
    assert spec.max_resolution == (5, 7)
    assert params == {}
    # same coordinates, same features: the corners of both grids are the same points
    old = SeparableFourier.of_grid((5, 7), bands=2).dense()
    new = SeparableFourier.of_grid((8, 11), bands=2, max_resolution=spec.max_resolution).dense()
    np.testing.assert_allclose(new[0], old[0], atol=1e-6)
    np.testing.assert_allclose(new[-1], old[-1], atol=1e-6)


def test_the_convolutional_stems_grid_is_a_quarter(image_spec):
    spec, _ = resize(specs.parse(image_spec | {"stem": "conv", "stem_channels": 4}), {}, (32, 24))
    assert spec.max_resolution == (2, 2)  # of 5 x 7, halved twice and rounded up


def test_learned_positions_are_interpolated_bilinearly(image_spec):
    spec = specs.parse(image_spec | {"positions": "learned", "position_channels": 2})
    rows, columns = np.meshgrid(np.arange(5.0), np.arange(7.0), indexing="ij")
    table = np.stack([rows, columns], axis=-1).reshape(35, 2).astype(np.float32)
    new, params = resize(spec, {"inputs/positions": {"table": table}}, (10, 7))
    grid = np.asarray(params["inputs/positions"]["table"]).reshape(10, 7, 2)
    assert new.image_shape == (10, 7, 3)
    # a linear ramp stays one between the outermost centres of the old grid
    np.testing.assert_allclose(grid[1:-1, 3, 0], np.arange(1, 9) / 2 - 0.25, atol=1e-6)
    np.testing.assert_allclose(grid[4, :, 1], np.arange(7), atol=1e-6)


def test_a_resized_model_runs_and_its_own_size_changes_nothing(image_spec, draw_params):
    model = perceiver.build(image_spec | {"positions": "learned", "position_channels": 4})
    params = draw_params(model.init)
    same, unchanged = resize(model.spec, params, (5, 7))
    np.testing.assert_allclose(
        unchanged["inputs/positions"]["table"], params["inputs/positions"]["table"], atol=1e-6
    )
    spec, larger = resize(model.spec, params, (7, 6))
    image = np.ones((2, 7, 6, 3), np.float32)
    logits, _ = jax.jit(perceiver.build(spec).apply)(larger, {}, None, {"image": image})
    assert np.isfinite(logits).all()
    assert same.image_shape == model.spec.image_shape


def test_patches_of_a_transformer_are_what_has_learned_positions(transformer_spec, draw_params):
    model = perceiver.build(transformer_spec | {"positions": "learned"})
    old = draw_params(model.init)
    spec, params = resize(model.spec, old, (10, 14))
    assert params["inputs/positions"]["table"].shape == (5 * 7, 8)
    shapes = jax.eval_shape(perceiver.build(spec).init, jax.random.key(0))[0]
    assert {k: v["table"].shape for k, v in shapes.items() if "table" in v} == {
        "inputs/positions": (35, 8)
    }
    with pytest.raises(ValueError, match="multiples of patch_size=2"):
        resize(model.spec, old, (10, 15))


@pytest.mark.parametrize("name", ["resnet_spec", "transformer_spec"])
def test_baselines_keep_the_frequencies_of_training(name, request):
    old = request.getfixturevalue(name)
    spec, _ = resize(specs.parse(old), {}, (22, 18))
    assert spec.max_resolution == old["image_shape"][:2]
    assert spec.image_shape == (22, 18, 3)


def test_what_cannot_be_resized_is_said(text_spec, image_spec, resnet_spec):
    with pytest.raises(ValueError, match="image_resnet permutes the pixels of one image size"):
        resize(specs.parse(resnet_spec | {"permutation": 3}), {}, (22, 14))
    with pytest.raises(ValueError, match="masked_lm model has no image size"):
        resize(specs.parse(text_spec), {}, (3, 3))
    with pytest.raises(ValueError, match=r"image size \(0, 3\) must be positive"):
        resize(specs.parse(image_spec), {}, (0, 3))
