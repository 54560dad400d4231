"""Video and sound as two segments: bookkeeping, content, paths, what training hides."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver
from perceiver import summary
from perceiver.cross_attention import plan
from perceiver.inputs import clip
from perceiver.inputs.mel import log_mel
from perceiver.kinds import specs
from perceiver.kinds.builders import KINDS
from perceiver.kinds.released import MODELS
from perceiver.pretrained.use.maps import by_modality

TOLERANCE = 1e-5
B = 2
RAW = {
    "kind": "clip_classifier",
    "classes": 11,
    "video_shape": (6, 6, 15, 3),  # 3 x 2 x 3 patches of 90 values
    "video_patch": (2, 3, 5),
    "video_bands": 2,
    "audio": "raw",
    "samples": 5 * 96,
    "samples_per_patch": 32,
    "audio_bands": 3,
    "sample_rate": 8000,
    "modality_channels": 7,
    "latents": 13,
    "latent_channels": 8,
    "layers": 2,
    "self_heads": 2,
    "query_channels": 6,
}
MEL = RAW | {"audio": "mel", "mel_bins": 7, "mel_window": 128, "mel_hop": 96}
SPECS = {
    "raw": RAW,
    "mel": MEL,
    "mel in two axes": MEL | {"mel_positions": 2},
    "video alone": RAW | {"audio": "none"},
    "raw alone": RAW | {"video_shape": ()},
    "mel alone": MEL | {"video_shape": ()},
    "mean, interleaved": MEL | {"head": "mean", "encoders": (0, 1), "processors": (0, 1)},
}


@pytest.fixture
def clips(rng):
    return {
        "video": rng.uniform(-1, 1, (B, 6, 6, 15, 3)).astype(np.float32),
        "audio": rng.uniform(-1, 1, (B, 480)).astype(np.float32),
    }


def given(spec, clips):
    return {name: clips[name] for name in specs.parse(spec).modalities}


def byte_array(spec, inputs, *, is_training=False, seed=None):
    """Returns the byte array of inputs, and the parameters that it has."""
    parse = specs.parse(spec)
    transformed = hk.transform(
        lambda: KINDS["clip_classifier"].parts(parse).preprocess(inputs, is_training=is_training)
    )
    params = transformed.init(jax.random.key(0))
    key = None if seed is None else jax.random.key(seed)
    return transformed.apply(params, key), params


@pytest.mark.parametrize(
    ("name", "sizes", "channels"),
    [
        ("perceiver-audioset-raw", {"audio": (480,)}, 257),
        ("perceiver-audioset-mel", {"audio": (4800,)}, 130),
        ("perceiver-audioset-video", {"video": (16, 28, 28)}, 483),
        ("perceiver-audioset-raw-video", {"video": (16, 28, 28), "audio": (480,)}, 487),
        ("perceiver-audioset-mel-video", {"video": (16, 28, 28), "audio": (4800,)}, 487),
        ("audioset-raw", {"video": (16, 28, 28), "audio": (480,)}, 487),
        ("audioset-mel", {"video": (16, 28, 28), "audio": (4800,)}, 487),
    ],
)
def test_byte_arrays_are_the_papers(name, sizes, channels, summary_of):
    array = summary_of(name)["byte_array"]
    assert {segment["name"]: tuple(segment["dims"]) for segment in array["segments"]} == sizes
    parts = ("content_channels", "position_channels", "constant_channels")
    for segment in array["segments"]:
        assert sum(segment[part] for part in parts) == array["channels"] == channels
    rows = {("video", "audio"): {480: 13024, 4800: 17344}}.get(tuple(sizes))
    if rows:  # Perceiver IO, table 5
        assert array["size"] == rows[sizes["audio"][0]]


def test_segments_are_never_concatenated():
    """No array of the traced gradient has as many rows as both modalities together."""
    model = perceiver.build(MODELS["audioset-mel"] | {"layers": 1})
    params, state = jax.eval_shape(model.init, jax.random.key(0))

    def loss(params, inputs):
        return model.apply(params, state, None, inputs)[0].sum()

    rows = summary.byte_array_shapes(model).size
    jaxpr = jax.make_jaxpr(jax.grad(loss))(params, model.example_inputs(2)).jaxpr
    assert not [shape for shape in shapes_in(jaxpr) if rows in shape]


def shapes_in(jaxpr):
    """Yields the shapes of everything that a program computes."""
    for equation in jaxpr.eqns:
        yield from (x.aval.shape for x in equation.outvars)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from shapes_in(inner)


def test_patches_hold_their_pixels_and_samples(clips):
    array, params = byte_array(RAW, clips)
    video, audio = array.segments
    for t, h, w in np.ndindex(3, 2, 3):
        block = clips["video"][:, 2 * t :, 3 * h :, 5 * w :][:, :2, :3, :5]
        np.testing.assert_array_equal(video.content[:, t, h, w], block.reshape(B, -1))
    np.testing.assert_array_equal(audio.content[:, 4], clips["audio"][:, 128:160])
    assert array.channels == 90 + 3 * 5 + 7 == specs.parse(RAW).channels
    for segment in array.segments:
        vector = params[f"inputs/{segment.name}/modality"]["table"]
        np.testing.assert_array_equal(segment.constant, vector[0])


@pytest.mark.parametrize("axes", [1, 2])
def test_a_spectrogram_is_one_value_an_element(clips, axes):
    array, _ = byte_array(MEL | {"mel_positions": axes}, clips)
    segment = array.segments[1]
    assert segment.dims == ((5, 7) if axes == 2 else (35,))
    decibels = log_mel(clips["audio"], sample_rate=8000, window=128, hop=96, bins=7)
    np.testing.assert_allclose(
        segment.content.reshape(B, 5, 7), (decibels + 30) / 30, rtol=1e-5, atol=1e-5
    )


def test_one_modality_has_no_embedding(clips):
    for name, width in (("raw alone", 32 + 7), ("mel alone", 1 + 7), ("video alone", 90 + 15)):
        array, params = byte_array(SPECS[name], given(SPECS[name], clips))
        assert len(array.segments) == 1
        assert array.channels == width
        assert params == {}


@pytest.fixture
def by_segment(monkeypatch):
    """Tiny models take the paths of large ones: each segment its own."""
    monkeypatch.setattr(plan, "FEW_WEIGHTS", 0)


# those of "mel" are compared with their gradients, below
@pytest.mark.parametrize("name", ["raw", "mel in two axes", "mean, interleaved"])
def test_segments_merge_to_what_the_dense_form_gives(name, clips, draw_params, by_segment):
    inputs = given(SPECS[name], clips)
    plain, auto = (perceiver.build(SPECS[name] | {"cross_path": p}) for p in ("plain", "auto"))
    params = draw_params(plain.init)
    choices = auto.explain()["stage 1"].choices
    assert [choice.segment for choice in choices] == list(inputs)
    assert {choice.path for choice in choices} <= {"separable", "shared"}
    expected, _ = jax.jit(plain.apply)(params, {}, None, inputs)
    found, _ = jax.jit(auto.apply)(params, {}, None, inputs)
    assert found.shape == (B, 11)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    "spec", [pytest.param(RAW, id="raw", marks=pytest.mark.slow), pytest.param(MEL, id="mel")]
)
def test_merged_segments_have_the_same_values_and_finite_gradients(
    spec, clips, draw_params, by_segment
):
    models = {p: perceiver.build(spec | {"cross_path": p}) for p in ("plain", "auto")}
    params = draw_params(models["plain"].init)
    weights = np.random.default_rng(3).random((B, 11), np.float32)

    def gradients(model):
        def loss(params):
            logits = model.apply(params, {}, None, clips)[0]
            return (logits * weights).sum(), logits

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    expected, logits = gradients(models["plain"])
    found, y = gradients(models["auto"])
    np.testing.assert_allclose(y, logits, rtol=TOLERANCE, atol=TOLERANCE)
    for module, leaves in expected.items():
        for leaf, x in leaves.items():
            assert np.isfinite(x).all()
            error = np.abs(found[module][leaf] - x).max()
            assert error <= 3 * TOLERANCE * max(1, np.abs(x).max()), f"{module}/{leaf}"


def test_attention_is_told_by_modality(clips, draw_params):
    model = perceiver.build(MEL | {"encoders": (0, 1), "processors": (0, 0)})
    found = jax.jit(model.attention_maps)(draw_params(model.init), {}, clips)
    maps = by_modality(model, clips, [np.asarray(x) for x in found])
    assert len(maps) == 2
    for weights in maps:
        assert weights["video"].shape == (B, 1, 13, 3, 2, 3)
        assert weights["audio"].shape == (B, 1, 13, 35)
        total = sum(x.reshape(B, 13, -1).sum(axis=-1) for x in weights.values())
        np.testing.assert_allclose(total, 1, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("spec", "modality", "missing"),
    [(RAW, "video", clip.BLACK), (RAW, "audio", clip.SILENT), (MEL, "audio", clip.SILENT)],
    ids=["video", "audio", "audio, mel"],
)
def test_training_drops_a_modality_as_if_the_clip_had_none(spec, modality, missing, rng):
    spec = spec | {f"{modality}_dropout": 0.3}
    clips = {
        "video": rng.uniform(-1, 1, (200, 6, 6, 15, 3)).astype(np.float32),
        "audio": rng.uniform(-1, 1, (200, 480)).astype(np.float32),
    }
    whole, _ = byte_array(spec, clips)  # evaluation draws nothing
    without, _ = byte_array(spec, clips | {modality: np.full_like(clips[modality], missing)})
    mixed, _ = byte_array(spec, clips, is_training=True, seed=5)
    for a, b, c in zip(whole.segments, without.segments, mixed.segments, strict=True):
        a, b, c = (np.asarray(x.content).reshape(200, -1) for x in (a, b, c))
        dropped = (c == b).all(axis=1) & (a != b).any(axis=1)
        np.testing.assert_array_equal(c[~dropped], a[~dropped])
        assert 40 < dropped.sum() < 80 if (a != b).any() else not dropped.any()
        assert (a == b).all() or not b.any()  # entirely zeroed


def test_training_masks_the_spectrogram_and_evaluation_does_not(clips):
    spec = MEL | {"mel_time_mask": 3, "mel_bin_mask": 4}
    plain, _ = byte_array(MEL, clips, is_training=True)
    evaluated, _ = byte_array(spec, clips)
    trained, _ = byte_array(spec, clips, is_training=True, seed=3)
    np.testing.assert_array_equal(evaluated.segments[1].content, plain.segments[1].content)
    assert (trained.segments[1].content != plain.segments[1].content).any()
    np.testing.assert_array_equal(trained.segments[0].content, plain.segments[0].content)


def test_bfloat16_hears_as_well(clips, draw_params):
    """The spectrogram is of the exact samples; only its values are rounded."""
    full, _ = byte_array(MEL, clips)
    half, _ = byte_array(MEL | {"dtype": "bfloat16"}, clips)
    expected = full.segments[1].content.astype(jnp.bfloat16)
    np.testing.assert_array_equal(half.segments[1].content, expected)
    model = perceiver.build(MEL | {"dtype": "bfloat16"})
    quiet = clips | {"audio": 1 + clips["audio"] * 1e-3}  # which bfloat16 would round to 1
    params = draw_params(model.init)
    with_sound, _ = jax.jit(model.apply)(params, {}, None, quiet)
    without, _ = jax.jit(model.apply)(params, {}, None, clips | {"audio": np.ones((B, 480), "f")})
    assert with_sound.dtype == jnp.float32
    assert np.abs(with_sound - without).max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_shape": (), "audio": "none"}, "leaves no input"),
        ({"audio": "wav"}, "audio='wav' is unknown; choose one of none, raw, mel"),
        ({"video_shape": (6, 7, 15, 3)}, r"needs multiples of video_patch=\(2, 3, 5\)"),
        ({"samples": 481}, "samples=481 must be a multiple of mel_hop=96"),
        ({"audio": "raw", "samples": 481}, "must be a multiple of samples_per_patch=32"),
        ({"mel_window": 95}, "must be mel_hop=96, or longer by an even number"),
        ({"mel_window": 97}, "must be mel_hop=96, or longer by an even number"),
        ({"mel_bins": 80}, "is empty: a window of 128 samples at 8000 Hz"),
        ({"mel_positions": 3}, "mel_positions=3 must be 1 or 2 axes"),
        ({"mel_time_mask": 6}, "mel_time_mask=6 exceeds 5"),
        ({"mel_bin_mask": 8}, "mel_bin_mask=8 exceeds mel_bins"),
        ({"video_dropout": 1.0}, r"video_dropout=1.0 must lie in \[0, 1\)"),
        ({"query_heads": 3}, "must divide latent_channels=8"),
        ({"audio_max_resolution": (5, 7)}, r"must be \(elements\)"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_wrong_specs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        specs.parse(MEL | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": np.zeros((B, 479), np.float32)}, r"audio must be \[batch, 480\]"),
        ({"audio": np.zeros((3, 480), np.float32)}, "with the same batch"),
        ({"audio": np.zeros((B, 480), np.int16)}, r"got int16; scale it to \[-1, 1\]"),
        (
            {"video": np.zeros((B, 6, 6, 15, 3), np.uint8)},
            "video must be floating-point, got uint8",
        ),
        ({"video": None}, "needs inputs"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_wrong_inputs_are_refused(clips, change, message):
    inputs = {name: x for name, x in (clips | change).items() if x is not None}
    with pytest.raises(ValueError, match=message):
        perceiver.build(RAW).check(inputs)


def test_a_modality_that_the_model_does_not_have_is_ignored(clips, draw_params):
    model = perceiver.build(SPECS["raw alone"])
    params = draw_params(model.init)
    alone, _ = jax.jit(model.apply)(params, {}, None, {"audio": clips["audio"]})
    both, _ = jax.jit(model.apply)(params, {}, None, clips)
    np.testing.assert_array_equal(alone, both)
