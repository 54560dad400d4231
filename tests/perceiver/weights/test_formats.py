"""Any file or folder of weights is told apart by what is in it, and read by one function."""

import dataclasses
import json
import pickle
import tracemalloc

import jax
import numpy as np
import pytest

import perceiver
from perceiver.weights import deepmind, formats, huggingface, native
from perceiver.weights.mapping import translate_back, unflatten

SPEC = {
    "kind": "image_classifier",
    "image_shape": (9, 11, 3),
    "classes": 7,
    "max_resolution": (224, 224),
    "latents": 5,
    "latent_channels": 12,
    "layers": 2,
    "self_heads": 2,
    "query_channels": 12,
}
USAGE = {
    "labels": [f"thing {i}" for i in range(7)],
    "image": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_fraction": 0.5},
}


@pytest.fixture(scope="module")
def saved():
    model = perceiver.build(SPEC)
    draw = np.random.default_rng(3)
    params, state = jax.tree.map(
        lambda x: draw.standard_normal(x.shape).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0)),
    )
    return native.Saved(model, params, state, USAGE)


@pytest.fixture(scope="module")
def places(saved, tmp_path_factory):
    """One model in every format."""
    root = tmp_path_factory.mktemp("places")
    formats.save(root / "native", saved)
    formats.save(root / "run" / "model", saved, to="native")
    (root / "run" / "checkpoints").mkdir()
    formats.save(root / "huggingface", saved, to="huggingface")
    theirs = unflatten(translate_back(saved.params, deepmind.rules(saved.model.spec)))
    for name, protocol in (("x.pystate", 4), ("weights", 2), ("old.pickle", 4)):
        (root / name).write_bytes(pickle.dumps({"params": theirs, "state": {}}, protocol))
    return root


PLACES = {
    "native": "native",
    "native/model.safetensors": "native",
    "native/config.json": "native",
    "run": "native",
    "run/model": "native",
    "huggingface": "huggingface",
    "huggingface/model.safetensors": "huggingface",
    "huggingface/config.json": "huggingface",
    "x.pystate": "deepmind",
    "weights": "deepmind",
    "old.pickle": "deepmind",
}


@pytest.mark.parametrize("place", PLACES)
def test_every_format_gives_the_same_model(place, saved, places):
    path = places / place
    assert formats.detect(formats.resolve(path)) == PLACES[place]
    spec = SPEC if PLACES[place] == "deepmind" else None
    again = formats.load(path, spec=spec)
    jax.tree.map(np.testing.assert_array_equal, again.params, saved.params)
    jax.tree.map(np.testing.assert_array_equal, again.state, saved.state)
    assert again.model.spec == saved.model.spec
    if spec is None:  # a pickle has no labels
        assert again.usage == dataclasses.asdict(saved)["usage"] | {"image": again.usage["image"]}
    assert sum(x.read().size for x in formats.arrays(path).values()) == sum(
        x.size for x in jax.tree.leaves(saved.params)
    )


@pytest.mark.parametrize("fmt", ["native", "huggingface", "deepmind"])
def test_loading_takes_the_model_and_little_more(fmt, tmp_path):
    spec = SPEC | {"latent_channels": 512, "query_channels": 512, "layers": 11}
    model = perceiver.build(spec)
    params, state = jax.tree.map(
        lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(model.init, jax.random.key(0))
    )
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    path = tmp_path / "weights.pystate"
    if fmt == "deepmind":
        theirs = translate_back(params, deepmind.rules(model.spec))
        path.write_bytes(pickle.dumps(unflatten(theirs), 4))
    else:
        path = tmp_path
        formats.save(path, native.Saved(model, params, state, USAGE), to=fmt)
    del params
    spec = spec if fmt == "deepmind" else None
    formats.load(path, spec=spec)  # what JAX caches of the model is no part of it
    tracemalloc.start()
    saved = formats.load(path, spec=spec)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 60 << 20
    assert size <= peak < 1.1 * size  # one stack is 18 % of it, a layer 2 %
    assert all(x.flags.c_contiguous for x in jax.tree.leaves(saved.params))


def make(path, name):
    contents = {
        "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(20),
        "page.txt": b"<!DOCTYPE html><html>",
        "array.npy": b"\x93NUMPY\x01\x00",
        "notes.txt": b"these are notes",
        "nothing.txt": b"",
        "pointer": b"version https://git-lfs.github.com/spec/v1\n",
    }
    if name in contents:
        (path / name).write_bytes(contents[name])
        return path / name
    (path / name).mkdir()
    configs = {"gpt2": {"model_type": "gpt2", "architectures": ["GPT2Model"]}, "list": []}
    if name in configs:
        (path / name / "config.json").write_text(json.dumps(configs[name]))
    if name == "list":
        (path / name / "model.safetensors").write_bytes(b"")
    if name == "running":
        (path / name / "checkpoints").mkdir()
    if name == "photos":
        (path / name / "1.jpg").write_bytes(b"")
    return path / name


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("picture.png", ValueError, "seems to be a PNG image; accepted are a run's folder"),
        ("page.txt", ValueError, "seems to be HTML or XML; the download failed"),
        ("array.npy", ValueError, "seems to be a single NumPy array"),
        ("notes.txt", ValueError, "starts with b'these ar'; accepted are"),
        ("nothing.txt", ValueError, "starts with b''"),
        ("pointer", ValueError, "a Git LFS pointer; fetch the file with `git lfs pull`"),
        ("gpt2", ValueError, "holds a model of type 'gpt2', not one of perceiver, bert, vit"),
        ("list", ValueError, "broken file"),
        ("running", FileNotFoundError, "a run that has not exported its model yet"),
        ("photos", FileNotFoundError, r"config.json is missing; it holds 1\.jpg; accepted are"),
        ("empty", FileNotFoundError, "config.json is missing; it is empty"),
    ],
)
def test_what_is_no_model_is_named(name, error, message, tmp_path):
    with pytest.raises(error, match=message):
        formats.load(make(tmp_path, name))


def test_what_does_not_exist_is_named(tmp_path):
    for function in (formats.load, formats.arrays, formats.resolve, formats.detect):
        with pytest.raises(FileNotFoundError, match="gone does not exist; accepted are a run's"):
            function(tmp_path / "gone")


def test_weights_alone_say_what_they_lack(places, tmp_path):
    weights = (places / "huggingface" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        formats.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing; it describes the model"):
        formats.load(tmp_path / "model.safetensors")


def test_arguments_that_a_format_has_no_use_for_are_refused(places):
    with pytest.raises(ValueError, match="already describes its model; omit spec"):
        formats.load(places / "native", spec=SPEC)
    for place in ("native", "x.pystate"):
        with pytest.raises(ValueError, match="conv_kernel applies to Hugging Face files"):
            formats.load(places / place, conv_kernel="hub")


def test_an_unknown_format_to_save_in_is_refused(saved, tmp_path):
    with pytest.raises(ValueError, match="to='onnx' is unknown; choose 'native' or 'huggingface'"):
        formats.save(tmp_path, saved, to="onnx")


def test_options_of_a_format_are_passed_on(saved, tmp_path):
    formats.save(tmp_path, saved, to="huggingface", conv_kernel="hub")
    assert huggingface.read(tmp_path).model.spec == saved.model.spec
