"""A wrong spec is refused before anything is built, and the error says what to change."""

import dataclasses
import json

import pytest

import perceiver
from perceiver.kinds import specs
from perceiver.kinds.released import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_a_spec_survives_json(name):
    spec = specs.parse(MODELS[name])
    again = specs.parse(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert spec.to_dict().keys() == {"kind", *(f.name for f in dataclasses.fields(spec))}


def test_lists_become_tuples(image_spec):
    spec = specs.parse(
        {**image_spec, "image_shape": [5, 7, 3], "encoders": [0, 1], "processors": [0, 0]}
    )
    assert spec.image_shape == (5, 7, 3)
    assert spec.encoders == (0, 1)
    assert spec.sharing == perceiver.Sharing(encoders=(0, 1), processors=(0, 0))


def test_a_spec_is_frozen_and_parsing_does_not_change_the_dict(image_spec):
    before = dict(image_spec)
    spec = specs.parse(image_spec)
    assert image_spec == before
    assert specs.parse(spec) is spec
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.latents = 3


def test_a_config_dict_is_a_spec(image_spec):
    config_dict = pytest.importorskip("ml_collections").ConfigDict(image_spec)
    assert specs.parse(config_dict) == specs.parse(image_spec)


def test_a_name_is_no_spec_but_points_to_one():
    with pytest.raises(ValueError, match=r"did you mean released.MODELS\['imagenet-fourier'\]"):
        perceiver.build("imagenet-fourier")


@pytest.mark.parametrize("kind", [None, "image_clasifier"])
def test_an_unknown_kind_lists_the_known_ones(image_spec, kind):
    message = f"'kind' must be one of image_classifier, .*, masked_lm, .*, not {kind!r}"
    with pytest.raises(ValueError, match=message):
        specs.parse({**image_spec, "kind": kind})


def test_a_missing_kind_is_said(image_spec):
    del image_spec["kind"]
    with pytest.raises(ValueError, match="'kind' must be one of"):
        specs.parse(image_spec)


def test_an_unknown_field_gets_a_suggestion(image_spec, text_spec):
    with pytest.raises(
        ValueError, match="no field 'latent_chanels'; did you mean 'latent_channels'"
    ):
        specs.parse({**image_spec, "latent_chanels": 8})
    with pytest.raises(ValueError, match=r"image_classifier has no field 'zzz'$"):
        specs.parse({**image_spec, "zzz": 8})
    with pytest.raises(ValueError, match="masked_lm has no field 'image_shape'"):
        specs.parse({**text_spec, "image_shape": (5, 7, 3)})


def test_all_missing_fields_are_listed(image_spec):
    del image_spec["latents"], image_spec["image_shape"]
    with pytest.raises(ValueError, match="image_classifier needs the fields latents, image_shape"):
        specs.parse(image_spec)


IMAGE_ERRORS = [
    ({"latents": 0}, "latents=0 must be positive"),
    ({"latents": "512"}, "latents='512' must be of type int"),
    ({"latents": True}, "latents=True must be of type int"),
    ({"layers": 2.0}, r"layers=2.0 must be of type int"),
    ({"layers": -1}, "layers=-1 must not be negative"),
    ({"cross_qk_channels": -4}, "cross_qk_channels=-4 must not be negative"),
    ({"blocks": 0}, "blocks=0 must be positive"),
    ({"dropout_rate": 1.0}, r"dropout_rate=1.0 must lie in \[0, 1\)"),
    ({"attention_dropout_rate": -0.1}, r"attention_dropout_rate=-0.1 must lie in \[0, 1\)"),
    ({"dropout_rate": None}, "dropout_rate=None must be of type float"),
    ({"query_residual": 1}, "query_residual=1 must be of type bool"),
    ({"query_heads": 0}, "query_heads=0 must be positive"),
    ({"query_channels": 0}, "query_channels=0 must be positive"),
    ({"kernel": "flash"}, "kernel='flash' is unknown; choose one of .*reference"),
    ({"remat": "all"}, "remat='all' is unknown; choose one of dots, layer, sqrt, none"),
    ({"dtype": "float16"}, "dtype='float16' is unknown; choose one of float32, bfloat16"),
    ({"stem": "patches"}, "stem='patches' is unknown; choose one of pixels, conv1x1, conv"),
    ({"positions": "sine"}, "positions='sine' is unknown; choose one of fourier, learned"),
    ({"head": "max"}, "head='max' is unknown; choose one of query, mean"),
    ({"classes": 1}, "classes=1 must be at least 2"),
    ({"layers": 10**9}, "layers=1000000000 must be at most 16,384"),
    ({"latents": 10**12}, "latents=1000000000000 must be at most 16,777,216"),
    ({"encoders": tuple(range(3000))}, "has more than 1,024 places"),
    ({"image_shape": (10**5, 10**5, 3)}, "has more than 1,073,741,824 elements"),
    ({"image_shape": (5, 7)}, r"image_shape=\(5, 7\) must be \(height, width, channels\)"),
    ({"image_shape": (5, 0, 3)}, r"image_shape=\(5, 0, 3\) must be"),
    ({"image_shape": 224}, "image_shape=224 must be of type tuple"),
    ({"max_resolution": (5,)}, r"max_resolution=\(5,\) must be \(height, width\) or \(\)"),
    ({"self_heads": 3}, r"self_qk_channels=0 \(8\) must be a multiple of self_heads=3"),
    ({"self_v_channels": 7}, r"self_v_channels=7 \(7\) must be a multiple of self_heads=2"),
    (
        {"cross_heads": 2, "cross_qk_channels": 5},
        r"cross_qk_channels=5 \(5\) must be a multiple of cross_heads=2",
    ),
    ({"encoders": (0, 1)}, r"encoders=\(0, 1\) and processors=\(0,\) need one entry per stage"),
    ({"encoders": (1,)}, r"encoders=\(1,\) must number weights 0, 1, ... in order"),
]
TEXT_ERRORS = [
    ({"vocabulary": 0}, "vocabulary=0 must be positive"),
    ({"max_length": 0}, "max_length=0 must be positive"),
    ({"query_heads": 0}, "query_heads=0 must be positive"),
    ({"query_heads": 4, "embedding_channels": 6}, "embedding_channels=6 must be a multiple of .*4"),
    ({"query_qk_channels": 5}, "query_qk_channels=5 must be a multiple of .*query_heads=2"),
]


FLOW_ERRORS = [
    ({"frame_shape": (5, 7)}, r"frame_shape=\(5, 7\) must be \(height, width, channels\)"),
    ({"frame_shape": (5, 0, 3)}, r"frame_shape=\(5, 0, 3\) must be"),
    ({"frame_shape": (5, 7.0, 3)}, r"frame_shape=\(5, 7.0, 3\) must be"),
    ({"patch_size": 2}, "patch_size=2 must be odd"),
    ({"patch_channels": 0}, "patch_channels=0 must be positive"),
    ({"output_scale": 0.0}, "output_scale=0.0 must be positive"),
    ({"max_resolution": (5,)}, r"max_resolution=\(5,\) must be \(height, width\)"),
    ({"query_heads": 3}, r"query_qk_channels=0 \(8\) must be a multiple of query_heads=3"),
    (
        {"query_heads": 2, "query_v_channels": 5},
        r"query_v_channels=5 \(5\) must be a multiple of query_heads=2",
    ),
]
VIDEO_ERRORS = [
    ({"video_shape": (3, 8, 20)}, "must be .frames, height, width, channels"),
    ({"video_shape": (3, 8, 18, 3)}, r"video_shape=.* multiples of patch_size=4"),
    ({"samples": 30}, "samples=30 must be a multiple of samples_per_patch=4"),
    ({"classes": 0}, "classes=0 must be positive"),
    ({"query_padding": 0}, "query_padding=0 must be positive"),
    ({"video_max_resolution": (3, 5)}, r"must be \(frames, height, width\)"),
    ({"audio_max_resolution": (3, 5)}, r"must be \(samples\)"),
    ({"query_heads": 3}, "query_heads=3 must divide latent_channels=8"),
    ({"label_mask_rate": 1.5}, r"label_mask_rate=1.5 must lie in \[0, 1\]"),
]


@pytest.mark.parametrize(("change", "message"), FLOW_ERRORS, ids=str)
def test_wrong_values_of_a_flow_model(flow_spec, change, message):
    with pytest.raises(ValueError, match=message):
        specs.parse({**flow_spec, **change})


@pytest.mark.parametrize(("change", "message"), VIDEO_ERRORS, ids=str)
def test_wrong_values_of_a_video_autoencoder(video_spec, change, message):
    with pytest.raises(ValueError, match=message):
        specs.parse({**video_spec, **change})


def test_a_videos_widths_are_those_of_the_released_weights():
    spec = specs.parse(MODELS["video-autoencoder"])
    assert (spec.channels, spec.query_channels) == (704, 1026)
    assert spec.video_resolution == (16, 56, 56)
    assert spec.audio_resolution == (30720,)


@pytest.mark.parametrize(("change", "message"), IMAGE_ERRORS, ids=str)
def test_wrong_values_of_an_image_classifier(image_spec, change, message):
    with pytest.raises(ValueError, match=message):
        specs.parse({**image_spec, **change})


@pytest.mark.parametrize(("change", "message"), TEXT_ERRORS, ids=str)
def test_wrong_values_of_a_masked_lm(text_spec, change, message):
    with pytest.raises(ValueError, match=message):
        specs.parse({**text_spec, **change})


def test_errors_name_the_kind(image_spec, text_spec):
    for spec in (image_spec, text_spec):
        with pytest.raises(ValueError, match=f"^{spec['kind']}: latents=0 must be positive"):
            specs.parse({**spec, "latents": 0})
