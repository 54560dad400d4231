"""Clip classifiers in use: windows, averages, files without picture or sound."""

import jax
import numpy as np
import pytest

SPEC = {
    "kind": "clip_classifier",
    "classes": 7,
    "video_shape": (4, 8, 12, 3),
    "video_patch": (2, 4, 4),
    "video_bands": 2,
    "audio": "mel",
    "samples": 7680,  # as long as four frames
    "mel_bins": 5,
    "mel_window": 1024,
    "mel_hop": 768,
    "audio_bands": 2,
    "latents": 5,
    "latent_channels": 8,
    "layers": 1,
    "self_heads": 2,
    "query_channels": 6,
}
SECONDS = 0.16


@pytest.fixture(scope="module")
def model(draw_model):
    return draw_model(SPEC)


@pytest.fixture
def clip(rng):
    video = rng.integers(0, 256, (10, 8, 12, 3), np.uint8)
    return video, rng.uniform(-1, 1, 10 * 1920).astype(np.float32)


def scores(model, video, audio):
    """Returns probabilities [7] of one window."""
    inputs = {"video": video[None].astype(np.float32), "audio": audio[None].astype(np.float32)}
    logits, _ = jax.jit(model.model.apply)(model.params, model.state, None, inputs)
    return np.asarray(jax.nn.sigmoid(logits[0]))


def as_array(labels):
    return np.array([p for _, p in sorted(labels)])


def test_windows_are_what_the_model_itself_gives(model, clip):
    video, audio = clip
    found = model.tag(video, audio, hop=SECONDS, top_k=7)
    assert [start for start, _ in found.timeline] == pytest.approx([0, 0.16, 0.32])
    unit = video / np.float32(127.5) - 1
    expected = [
        scores(model, unit[:4], audio[:7680]),
        scores(model, unit[4:8], audio[7680:15360]),
        scores(model, unit[[8, 9, 9, 9]], np.pad(audio[15360:], (0, 3840))),
    ]
    for (_, labels), row in zip(found.timeline, expected, strict=True):
        np.testing.assert_allclose(as_array(labels), row, atol=1e-5)
    np.testing.assert_allclose(as_array(found.labels), np.mean(expected, axis=0), atol=1e-5)
    best = [p for _, p in found.labels]
    assert best == sorted(best, reverse=True)
    assert found.missing == ()


def test_what_is_missing_is_black_or_silent_and_said(model, clip):
    video, audio = clip
    found = model.tag(None, audio[:7680], top_k=7)
    assert found.missing == ("picture",)
    expected = scores(model, np.full((4, 8, 12, 3), -1.0), audio[:7680])
    np.testing.assert_allclose(as_array(found.labels), expected, atol=1e-5)
    found = model.tag(video[:4], top_k=7)
    assert found.missing == ("sound",)
    expected = scores(model, video[:4] / np.float32(127.5) - 1, np.zeros(7680))
    np.testing.assert_allclose(as_array(found.labels), expected, atol=1e-5)


def test_windows_overlap_by_half_unless_told(model, clip):
    assert len(model.tag(*clip).timeline) == 4
    assert len(model.tag(*clip, hop=0.04).timeline) == 7


def test_latents_and_attention_are_told_by_modality(model, clip):
    video, audio = clip
    assert model.embed(video, audio).shape == (3, 8)
    (maps,) = model.attention_maps(video[:4], audio[:7680])
    assert {name: x.shape for name, x in maps.items()} == {
        "video": (1, 1, 5, 2, 2, 3),
        "audio": (1, 1, 5, 50),
    }


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ((None,), {}, "give a media file, or video uint8"),
        (("x.mp4", np.zeros(7)), {}, r"x.mp4 has its own audio"),
        ((np.zeros((4, 8, 12, 3)),), {}, "must be uint8"),
        ((None, np.full(9, 2.0)), {}, r"must lie in \[-1, 1\]"),
        ((None, np.zeros(9)), {"top_k": 0}, "top_k must be at least 1, got 0"),
        ((None, np.zeros(9)), {"hop": -1}, "cannot start every -1 seconds"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_what_is_no_video_or_sound_is_said(model, given, options, message):
    with pytest.raises(ValueError, match=message):
        model.tag(*given, **options)
