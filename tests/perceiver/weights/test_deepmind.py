"""DeepMind's files become models: the released ones by their shapes, others by a spec."""

import importlib.util
import json
import logging
import pathlib
import pickle

import jax
import numpy as np
import pytest

import perceiver
from perceiver.kinds import released
from perceiver.weights import deepmind
from perceiver.weights.deepmind import pickles
from perceiver.weights.mapping import flatten, translate_back, unflatten
from perceiver.weights.stored import StoredArray

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"

_spec = importlib.util.spec_from_file_location("make_names", GOLDEN / "make_names.py")
make_names = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_names)

NAMES = json.loads((GOLDEN / "names.json").read_text())
CONV = {
    "kind": "image_classifier",
    "image_shape": (8, 12, 3),
    "classes": 7,
    "stem": "conv",
    "stem_channels": 5,
    "bands": 3,
    "latents": 5,
    "latent_channels": 12,
    "layers": 3,
    "self_heads": 2,
    "query_channels": 11,
}
VIDEO = {
    "kind": "video_autoencoder",
    "video_shape": (3, 8, 12, 3),
    "samples": 32,
    "classes": 7,
    "video_bands": 2,
    "audio_bands": 3,
    "label_query_channels": 11,
    "decoder_channels": 10,
    "latents": 5,
    "latent_channels": 12,
    "layers": 2,
    "self_heads": 2,
}
FLOW = {
    "kind": "optical_flow",
    "frame_shape": (7, 11, 3),
    "bands": 3,
    "patch_channels": 5,
    "latents": 5,
    "latent_channels": 12,
    "layers": 2,
    "self_heads": 2,
}


def content_of(spec, seed=3):
    """Random (params, state) of a model, named and shaped as DeepMind's."""
    model = perceiver.build(spec)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    draw = np.random.default_rng(seed)
    ours = jax.tree.map(
        lambda x: np.asarray(100 * draw.standard_normal(x.shape), x.dtype), {**params, **state}
    )
    named = translate_back(ours, deepmind.rules(model.spec))
    return tuple(
        unflatten({key: x for key, x in named.items() if ("_ema/" in key) == is_state})
        for is_state in (False, True)
    )


def write(path, content):
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


@pytest.mark.parametrize("spec", [CONV, VIDEO, FLOW], ids=lambda spec: spec["kind"])
def test_every_array_arrives(spec, tmp_path):
    params, state = content_of(spec)
    content = {"params": params, "state": state} if state else params
    saved = deepmind.read(write(tmp_path / "x.pystate", content), spec=spec)
    back = translate_back({**saved.params, **saved.state}, deepmind.rules(saved.model.spec))
    jax.tree.map(np.testing.assert_array_equal, back, {**flatten(params), **flatten(state)})
    inputs = {name: np.zeros(x.shape, x.dtype) for name, x in saved.model.example_inputs(1).items()}
    jax.eval_shape(saved.model.apply, saved.params, saved.state, None, inputs)


@pytest.fixture
def released_as(monkeypatch):
    """Makes `read` see a file with the names and shapes of a released model, and no numbers."""

    def released_as(name, change=lambda arrays: None):
        arrays = {
            key: StoredArray(
                tuple(shape),
                np.dtype(np.int32 if key.endswith("counter") else np.float32),
                lambda key=key, shape=shape: np.broadcast_to(np.float32(len(key)), shape),
            )
            for key, shape in make_names.expand(NAMES[name]["deepmind"]).items()
        }
        change(arrays)
        state = {key: x for key, x in arrays.items() if "_ema/" in key}
        params = {key: x for key, x in arrays.items() if key not in state}
        content = {"params": unflatten(params), "state": unflatten(state)}
        monkeypatch.setattr(
            pickles, "read", lambda path: content if "imagenet" in name else content["params"]
        )

    return released_as


@pytest.mark.parametrize("name", ["imagenet-conv", "video-autoencoder"])
def test_a_released_file_needs_no_spec(name, released_as):
    released_as(name)
    saved = deepmind.read("file")
    assert saved.model.spec == perceiver.build(released.MODELS[name]).spec
    assert len(saved.usage["labels"]) == saved.model.spec.classes
    assert saved.usage["labels"][0] != "class 0"


def test_another_size_asks_for_a_spec_and_says_what_it_knows(tmp_path):
    params, _ = content_of(VIDEO)
    path = write(tmp_path / "x.pystate", params)
    with pytest.raises(ValueError, match="like video-autoencoder, but not of the rel") as error:
        deepmind.read(path)
    assert "layers=2, latents=5, latent_channels=12" in str(error.value)
    assert "give spec=" in str(error.value)
    assert len(str(error.value).splitlines()) == 7  # five differences, and how many more


def test_a_stray_array_in_a_released_file_is_named(released_as):
    stray = StoredArray.of(np.zeros(3, np.float32))
    released_as("imagenet-fourier", lambda arrays: arrays.update({"stray/w": stray}))
    with pytest.raises(ValueError, match="differs from imagenet-fourier in\n  source stray/w: no"):
        deepmind.read("file")
    with pytest.raises(ValueError, match="source stray/w: no rule matches it"):
        deepmind.read("file", spec=released.MODELS["imagenet-fourier"])


def test_averages_without_history_count_as_settled(tmp_path):
    params, state = content_of(CONV)
    averages = {module: {"average": leaves["average"]} for module, leaves in state.items()}
    path = write(tmp_path / "x.pystate", {"params": params, "state": averages})
    saved = deepmind.read(path, spec=CONV)
    assert len(saved.state) == 2
    for leaves in saved.state.values():
        np.testing.assert_array_equal(leaves["hidden"], leaves["average"])
        assert leaves["counter"] == 1000


def test_a_batch_norm_without_averages_is_refused(tmp_path):
    params, _ = content_of(CONV)
    path = write(tmp_path / "x.pystate", {"params": params, "state": {}})
    with pytest.raises(ValueError, match="mean_ema/average: nothing fills it; missing image_pre"):
        deepmind.read(path, spec=CONV)


def test_what_else_is_in_a_file_is_noted(tmp_path, caplog):
    params, state = content_of(CONV)
    content = {"params": params, "state": state, "step": 7, "config": {"lr": 0.1}}
    with caplog.at_level(logging.INFO):
        deepmind.read(write(tmp_path / "x.pystate", content), spec=CONV)
    assert "ignored, as they are not weights: config, step" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"linear": {"w": np.zeros(3)}}, "none of DeepMind's Perceiver IO.*modules are linear"),
        ({}, "modules are none"),
        ({"params": {"w": np.zeros(3)}}, "'w' is an array, not a module of arrays"),
        ({"linear": {"w": 3.5}}, "linear/w is of type float, not an array"),
        ({"params": {}, "state": np.zeros(3)}, "state is an array, not a mapping"),
        ({"params": {}, "state": (1,)}, "state is of type tuple, not a mapping"),
        ({"a": {"b/c": np.zeros(3)}, "a/b": {"c": np.zeros(3)}}, "two of its arrays have the same"),
        ({"linear": {"w": {"x": np.zeros(3)}}}, "linear/w is of type dict, not an array"),
    ],
)
def test_files_of_something_else_are_refused(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        deepmind.read(write(tmp_path / "x.pickle", content))
