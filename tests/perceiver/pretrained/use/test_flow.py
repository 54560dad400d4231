"""Optical flow in use: units, tiles, inputs of any form."""

import jax
import numpy as np
import pytest
from PIL import Image

SPEC = {
    "kind": "optical_flow",
    "frame_shape": (24, 28, 3),
    "patch_channels": 6,
    "bands": 2,
    "latents": 5,
    "latent_channels": 8,
    "layers": 1,
    "self_heads": 2,
}


@pytest.fixture(scope="module")
def model(draw_model):
    return draw_model(SPEC)


@pytest.fixture
def frames(rng):
    return rng.integers(0, 256, (2, 24, 28, 3), np.uint8)


def test_flow_is_the_models_output_in_pixels(model, frames):
    scaled = (frames / np.float32(255)) * 2 - 1
    inputs = {"frames": scaled[None]}
    expected, _ = jax.jit(model.model.apply)(model.params, model.state, None, inputs)
    found = model.flow(*frames)
    assert found.shape == (24, 28, 2)
    assert np.abs(found).max() > 0
    np.testing.assert_allclose(found, 20 * np.asarray(expected)[0], atol=1e-5)


def test_files_pictures_arrays_and_batches_are_the_same(model, frames, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(2)]
    pictures = [Image.fromarray(frame) for frame in frames]
    for file, picture in zip(files, pictures, strict=True):
        picture.save(file)
    expected = model.flow(*frames)
    np.testing.assert_array_equal(model.flow(*files), expected)
    np.testing.assert_array_equal(model.flow(*pictures), expected)
    batch = model.flow(np.stack([frames[0]] * 3), np.stack([frames[1]] * 3))
    assert batch.shape == (3, 24, 28, 2)
    np.testing.assert_allclose(batch[2], expected, atol=1e-5)


def test_frames_of_any_size_are_tiled(model, rng):
    for size in ((31, 50), (20, 28), (24, 29)):
        frames = rng.integers(0, 256, (2, *size, 3), np.uint8)
        found = model.flow(*frames, overlap=5)
        assert found.shape == (*size, 2)
        assert np.isfinite(found).all()


def test_bad_frames_are_named(model, frames):
    with pytest.raises(ValueError, match="the frames differ in shape"):
        model.flow(frames[0], frames[1][:-1])
    with pytest.raises(ValueError, match=r"a batch of frames must be uint8 \[B, H, W, 3\]"):
        model.flow(frames.astype(np.float32), frames.astype(np.float32))
    with pytest.raises(ValueError, match=r"frames of \(23, 28\) do not match the model's \(24"):
        model.embed(frames[0][:-1], frames[1][:-1])
