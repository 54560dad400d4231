"""Video autoencoders in use: clips, lengths, sound; pieces equal the whole."""

import jax
import numpy as np
import pytest

SPEC = {
    "kind": "video_autoencoder",
    "video_shape": (2, 8, 12, 3),
    "samples": 64,
    "classes": 7,
    "video_bands": 2,
    "audio_bands": 3,
    "label_query_channels": 20,
    "decoder_channels": 11,
    "latents": 5,
    "latent_channels": 8,
    "layers": 1,
    "self_heads": 2,
}


@pytest.fixture(scope="module")
def model(draw_model):
    return draw_model(SPEC)


@pytest.fixture
def clip(rng):
    video = rng.integers(0, 256, (2, 8, 12, 3), np.uint8)
    return video, rng.uniform(-1, 1, 64).astype(np.float32)


def test_a_clip_gives_what_the_model_itself_gives(model, clip):
    video, audio = clip
    found = model.autoencode(video, audio, top_k=7)
    inputs = {"video": (video / np.float32(255))[None], "audio": audio[None]}
    whole, _ = jax.jit(model.model.apply)(model.params, model.state, None, inputs)
    expected = np.round(np.clip(np.asarray(whole["video"][0]), 0, 1) * 255)
    assert np.abs(found.video.astype(int) - expected).max() <= 1  # rounding of halves
    np.testing.assert_allclose(found.audio, whole["audio"][0], atol=1e-5)
    scores = np.asarray(jax.nn.softmax(whole["label"][0]))
    assert [label for label, _ in found.labels] == [f"class {i}" for i in np.argsort(-scores)]
    np.testing.assert_allclose([p for _, p in found.labels], np.sort(scores)[::-1], atol=1e-5)


def test_long_videos_are_taken_clip_by_clip_and_keep_their_length(model, clip):
    video, audio = clip
    found = model.autoencode(
        np.concatenate([video, video[:1]]), np.concatenate([audio, audio[:32]])
    )
    alone = model.autoencode(video, audio)
    assert found.video.shape == (3, 8, 12, 3)
    assert found.audio.shape == (96,)
    np.testing.assert_array_equal(found.video[:2], alone.video)
    np.testing.assert_allclose(found.audio[:64], alone.audio, atol=1e-6)


def test_other_sizes_int16_stereo_and_silence_are_accepted(model, clip):
    video, audio = clip
    large = np.repeat(np.repeat(video, 2, axis=1), 2, axis=2)
    as_int16 = np.round(audio * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    stereo = np.stack([as_int16, as_int16], axis=-1)
    found = model.autoencode(large, stereo)
    np.testing.assert_allclose(found.audio, model.autoencode(large, audio).audio, atol=1e-3)
    assert model.autoencode(video).audio.shape == (64,)


def test_latents_and_attention_are_told_by_modality(model, clip):
    assert model.embed(*clip).shape == (1, 8)
    (maps,) = model.attention_maps(*clip)
    assert {name: x.shape for name, x in maps.items()} == {
        "audio": (1, 1, 5, 4),
        "video": (1, 1, 5, 2, 2, 3),
        "label": (1, 1, 5, 1),
    }
    total = sum(x.reshape(5, -1).sum(axis=-1) for x in maps.values())
    np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize(
    ("video", "audio", "message"),
    [
        (np.zeros((2, 8, 12, 3), np.float32), None, r"must be uint8 \[frames, height, width, 3\]"),
        (np.zeros((0, 8, 12, 3), np.uint8), None, r"got uint8 \(0, 8, 12, 3\)"),
        (
            np.zeros((2, 8, 12, 3), np.uint8),
            np.zeros(999),
            "999 audio samples do not match 2 frames",
        ),
        (np.zeros((2, 8, 12, 3), np.uint8), np.full(64, 3.0), "must lie in .* but reaches 3"),
        (np.zeros((2, 8, 12, 3), np.uint8), np.full(64, np.nan), "must lie in"),
        (np.zeros((2, 8, 12, 3), np.uint8), np.zeros(64, int), "int16 or floating"),
    ],
)
def test_what_is_no_video_or_sound_is_said(model, video, audio, message):
    with pytest.raises(ValueError, match=message):
        model.autoencode(video, audio)
