"""Configs and files of Hugging Face's Perceiver models, without their library."""

import dataclasses
import json
import logging
import pathlib
import sys

import jax
import numpy as np
import pytest

import perceiver
from perceiver.kinds import released
from perceiver.text import tokenizer
from perceiver.weights import batch_norm, huggingface, tensors
from perceiver.weights.huggingface.classes import CLASSES, DEFAULTS, TEXT_CLASSES, class_of
from perceiver.weights.huggingface.config import spec_of
from perceiver.weights.huggingface.export import config_of
from perceiver.weights.native import Saved

CONV = {
    "kind": "image_classifier",
    "image_shape": (8, 12, 3),
    "classes": 7,
    "stem": "conv",
    "max_resolution": (56, 56),
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

# What the script that made the hub's files sets, beside the defaults: only the model of learned
# positions has its own image_size.
_IMAGE = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_cross_attention_heads": 1,
    "id2label": {str(i): f"LABEL_{i}" for i in range(1000)},
}
HUB = {
    "imagenet-fourier": _IMAGE,
    "imagenet-learned": _IMAGE | {"image_size": 224},
    "imagenet-conv": _IMAGE,
    "masked-lm-bytes": {"qk_channels": 256, "v_channels": 1280},
    "optical-flow": {
        "num_latents": 2048,
        "d_latents": 512,
        "d_model": 322,
        "num_self_attends_per_block": 24,
        "num_self_attention_heads": 16,
        "num_cross_attention_heads": 1,
    },
    "video-autoencoder": {
        "num_latents": 784,
        "d_latents": 512,
        "d_model": 704,
        "num_self_attends_per_block": 8,
        "num_cross_attention_heads": 1,
        "id2label": {str(i): f"LABEL_{i}" for i in range(700)},
    },
}
NAMES = list(HUB)
ARCHITECTURES = {
    "imagenet-fourier": "PerceiverForImageClassificationFourier",
    "imagenet-learned": "PerceiverForImageClassificationLearned",
    "imagenet-conv": "PerceiverForImageClassificationConvProcessing",
    "masked-lm-bytes": "PerceiverForMaskedLM",
    "optical-flow": "PerceiverForOpticalFlow",
    "video-autoencoder": "PerceiverForMultimodalAutoencoding",
}


@pytest.fixture(scope="module")
def saved():
    model = perceiver.build(CONV)
    draw = np.random.default_rng(3)
    params, state = jax.tree.map(
        lambda x: np.asarray(draw.standard_normal(x.shape), x.dtype),
        jax.eval_shape(model.init, jax.random.key(0)),
    )
    state = batch_norm.with_history(batch_norm.without_history(state), 543)
    return Saved(model, params, state, USAGE)


@pytest.fixture
def folder(saved, tmp_path):
    huggingface.save(tmp_path / "model", saved)
    return tmp_path / "model"


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shapes_of(name):
    golden = pathlib.Path(__file__).parents[2] / "golden" / "names.json"
    names = json.loads(golden.read_text())[name]["huggingface"]
    return {key: tuple(shape) for key, shape in names.items() if " x " not in key}


@pytest.mark.parametrize("name", NAMES)
def test_a_config_of_the_hub_is_the_released_model(name, trees_of):
    """Same function, said with fewer words: compared by their configs, and by their trees."""
    config = HUB[name] | {"architectures": [ARCHITECTURES[name]]}
    read = perceiver.build(spec_of(config, shapes_of(name)))
    ours = perceiver.build(released.MODELS[name])
    assert config_of(read.spec, {}) == config_of(ours.spec, {})
    assert jax.eval_shape(read.init, jax.random.key(0)) == trees_of(name)


@pytest.mark.parametrize("name", ["imagenet-fourier", "imagenet-conv"])
@pytest.mark.parametrize(
    ("config", "processor", "expected"),
    [
        ({}, {}, (224, 224, 3)),
        ({"image_size": 56}, {}, (224, 224, 3)),
        ({"image_size": 56}, {"size": 224, "crop_size": 256}, (224, 224, 3)),
        ({"image_size": 56}, {"size": {"height": 64, "width": 96}}, (64, 96, 3)),
        ({"image_size": [64, 96]}, {}, (64, 96, 3)),
        ({"image_size": 160}, {"size": {"shortest_edge": 192}}, (160, 160, 3)),
    ],
)
def test_where_positions_fit_any_image_the_processor_knows_its_size(
    name, config, processor, expected
):
    config = HUB[name] | {"architectures": [ARCHITECTURES[name]]} | config
    assert spec_of(config, {}, processor)["image_shape"] == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_class_is_known_by_names_where_the_config_is_silent(name):
    assert class_of({}, shapes_of(name)) == ARCHITECTURES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_all_that_theirs_says(name):
    config = config_of(perceiver.build(released.MODELS[name]).spec, {})
    assert DEFAULTS.keys() <= config.keys()
    assert config["architectures"] == [ARCHITECTURES[name]]
    assert config["hidden_act"] == "gelu_pytorch_tanh"
    assert json.loads(json.dumps(config)) == config


def test_every_class_is_covered():
    assert {*ARCHITECTURES.values(), TEXT_CLASSES} == set(CLASSES)


def test_a_classifier_of_texts_comes_back(draw_saved, tmp_path):
    spec = {"kind": "text_classifier", "classes": 3, "head": "linear", "max_length": 13}
    spec |= {"embedding_channels": 24, "latents": 5, "latent_channels": 12, "layers": 2}
    spec |= {"self_heads": 2, "query_heads": 1, "query_qk_channels": 12, "query_channels": 12}
    saved = draw_saved(spec | {"query_residual": True})
    huggingface.save(tmp_path, saved)
    again = perceiver.load(tmp_path)
    assert (again.spec, again.usage["special_tokens"]) == (saved.model.spec, True)
    jax.tree.map(np.testing.assert_array_equal, again.params, saved.params)
    ids = [tokenizer.CLS, *tokenizer.encode("a text"), tokenizer.SEP]
    tokens = {"tokens": np.array([ids]), "input_mask": np.ones((1, len(ids)), bool)}
    logits = np.asarray(again(tokens), np.float64)[0]
    expected = np.exp(logits).max() / np.exp(logits).sum()
    assert again.classify("a text")[0][1] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="head=mlp, required linear"):
        huggingface.save(tmp_path, draw_saved(spec | {"head": "mlp"}))


REFUSED = {
    "bands=6, required 64": {"stem": "pixels", "bands": 6, "max_resolution": (224, 224)},
    r"max_resolution=\(2, 3\), required \(56, 56\)": {"max_resolution": ()},
    "stem_channels=5, required 64": {"stem_channels": 5},
    "stem_stride=4, required 2": {"stem_stride": 4},
    "stem_window=9, required 7": {"stem_window": 9},
    "query_channels=11, required 12": {"query_channels": 11},
    "query_residual=False, required True": {"query_residual": False},
    r"image_shape=\(8, 12, 1\), required \(8, 12, 3\)": {"image_shape": (8, 12, 1)},
    r"image_shape=\(8, 12, 3\), required square": {
        "stem": "conv1x1",
        "stem_channels": 256,
        "positions": "learned",
        "query_residual": False,
    },
    "cannot express": {"cross_qk_channels": 4, "self_qk_channels": 6},
}


@pytest.mark.parametrize("message", REFUSED)
def test_sizes_that_their_classes_fix_are_named(message):
    with pytest.raises(ValueError, match=message):
        config_of(perceiver.build(CONV | REFUSED[message]).spec, {})


def test_images_of_the_size_that_means_nothing_in_a_config(saved, tmp_path):
    """56 is the default that the hub's configs leave there; a processor beside it decides."""
    model = perceiver.build(CONV | {"image_shape": (56, 56, 3)})
    huggingface.save(tmp_path, dataclasses.replace(saved, model=model))
    assert huggingface.read(tmp_path).model.spec.image_shape == (56, 56, 3)


OTHERS = {
    "patch_channels=5, required 64": {
        "kind": "optical_flow",
        "frame_shape": (7, 11, 3),
        "patch_channels": 5,
    },
    "output_scale=0.02, required 0.01": {
        "kind": "optical_flow",
        "frame_shape": (7, 11, 3),
        "output_scale": 0.02,
    },
    "samples=33 cannot be expressed.*each of the 2 frames": {
        "kind": "video_autoencoder",
        "video_shape": (2, 8, 8, 3),
        "samples": 33,
        "samples_per_patch": 11,
        "classes": 7,
    },
    "audio_bands=3, required 192": {
        "kind": "video_autoencoder",
        "video_shape": (2, 8, 8, 3),
        "samples": 32,
        "audio_bands": 3,
        "classes": 7,
    },
    r"video_max_resolution=\(2, 2, 3\), required \(2, 3, 3\)": {
        "kind": "video_autoencoder",
        "video_shape": (2, 8, 12, 3),
        "samples": 32,
        "classes": 7,
    },
    "query_heads=2, required 8": {"kind": "masked_lm", "query_heads": 2, "embedding_channels": 16},
}


@pytest.mark.parametrize("message", OTHERS)
def test_sizes_of_other_kinds_that_are_fixed_are_named(message):
    backbone = {"latents": 5, "latent_channels": 16, "layers": 1, "self_heads": 2}
    with pytest.raises(ValueError, match=message):
        config_of(perceiver.build(OTHERS[message] | backbone).spec, {})


def test_choices_without_a_counterpart_are_refused():
    good = _IMAGE | {"architectures": ["PerceiverForImageClassificationFourier"]}
    for change, message in (
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported; known are gelu, gelu_py"),
        ({"use_query_residual": False}, "use_query_residual=false is not supported"),
        ({"architectures": ["PerceiverModel"]}, "is PerceiverModel; supported are PerceiverForM"),
        ({"architectures": ["BertModel"]}, "is BertModel.*BertForMaskedLM, ViTForImageCl"),
        ({"architectures": None}, "neither config.json nor the names of the arrays identify"),
        ({"d_latents": "1024"}, "config.json: d_latents='1024' must be a number"),
        ({"num_blocks": True}, "config.json: num_blocks=True must be a number"),
        ({"train_size": 224}, r"config.json: train_size=224 must be a number \(or sides\)"),
    ):
        with pytest.raises(ValueError, match=message):
            spec_of(good | change, {})


def test_the_approximation_of_gelu_is_noted(caplog):
    config = _IMAGE | {"architectures": ["PerceiverForImageClassificationFourier"]}
    with caplog.at_level(logging.INFO):
        spec_of(config | {"hidden_act": "gelu_new"}, {})
        assert not caplog.messages
        spec_of(config, {})
    assert "tanh approximation" in caplog.text


def test_a_folder_comes_back(saved, folder):
    names = {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert {path.name for path in folder.iterdir()} == names
    for source in (folder, folder / "model.safetensors"):
        again = huggingface.read(source)
        jax.tree.map(np.testing.assert_array_equal, again.params, saved.params)
        jax.tree.map(np.testing.assert_array_equal, again.state, saved.state)
        assert again.usage == USAGE


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_what_a_wrapper_puts_before_all_names_is_taken_off(saved, folder, prefix):
    file = folder / "model.safetensors"
    stored = {prefix + name: x.read() for name, x in tensors.read(file).items()}
    tensors.write(file, stored, {"format": "pt"})
    again = huggingface.read(folder)
    jax.tree.map(np.testing.assert_array_equal, again.params, saved.params)
    stored["odd"] = np.zeros(3, np.float32)  # of no wrapper
    tensors.write(file, stored, {"format": "pt"})
    with pytest.raises(ValueError, match="odd"):
        huggingface.read(folder)


def test_a_model_without_usage_is_saved_with_the_released_models(saved, tmp_path):
    huggingface.save(tmp_path, dataclasses.replace(saved, usage={}))
    again = huggingface.read(tmp_path).usage
    assert again["labels"] == [f"class {i}" for i in range(7)]
    assert again["image"]["mean"] == [0.485, 0.456, 0.406]


def test_the_kernel_is_in_the_layout_that_was_asked_for(saved, tmp_path):
    w = saved.params["inputs/stem"]["w"]  # [7, 7, 3, 64]
    name = "perceiver.input_preprocessor.convnet.conv.weight"
    for layout, axes in (("torch", (3, 2, 0, 1)), ("hub", (3, 2, 1, 0))):
        huggingface.save(tmp_path / layout, saved, conv_kernel=layout)
        written = tensors.read(tmp_path / layout / "model.safetensors")[name].read()
        np.testing.assert_array_equal(written, np.transpose(w, axes))
        read = huggingface.read(tmp_path / layout)  # obeys what config.json says
        np.testing.assert_array_equal(read.params["inputs/stem"]["w"], w)
        other = "hub" if layout == "torch" else "torch"
        swapped = huggingface.read(tmp_path / layout, conv_kernel=other)
        turned = np.swapaxes(w, 0, 1)
        np.testing.assert_array_equal(swapped.params["inputs/stem"]["w"], turned)


def test_a_file_that_says_nothing_of_its_kernel_is_the_hubs(saved, folder):
    config = json.loads((folder / "config.json").read_text())
    del config[huggingface.CONV_KERNEL]
    (folder / "config.json").write_text(json.dumps(config))
    read = huggingface.read(folder).params["inputs/stem"]["w"]
    np.testing.assert_array_equal(read, np.swapaxes(saved.params["inputs/stem"]["w"], 0, 1))


def test_an_unknown_layout_is_refused(saved, folder, tmp_path):
    with pytest.raises(ValueError, match="conv_kernel='tf' is unknown; choose 'hub' or 'torch'"):
        huggingface.read(folder, conv_kernel="tf")
    with pytest.raises(ValueError, match="conv_kernel='tf' is unknown"):
        huggingface.save(tmp_path / "other", saved, conv_kernel="tf")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("tracked", "expected"), [(0, 1000), (7, 1000), (165, 165), (543, 543)])
def test_young_averages_count_as_settled(saved, folder, tracked, expected):
    path = folder / "model.safetensors"
    arrays = {name: x.read() for name, x in tensors.read(path).items()}
    arrays[huggingface.BATCHES][...] = tracked
    tensors.write(path, arrays)
    for leaves in huggingface.read(folder).state.values():
        assert leaves["counter"] == expected
        assert leaves["counter"].dtype == np.int32
        np.testing.assert_array_equal(leaves["hidden"], leaves["average"])
        # Haiku's own correction of the hidden sum is 1
        assert np.float32(1) - np.float32(0.9) ** np.float32(leaves["counter"]) == 1


def test_labels_of_the_config_are_the_models(folder):
    again = {str(i): f"Ding {i}" for i in range(7)}
    edit_config(folder, id2label=again)
    assert huggingface.read(folder).usage["labels"] == list(again.values())
    edit_config(folder, id2label={str(i): f"LABEL_{i}" for i in range(7)})
    assert huggingface.read(folder).usage["labels"] == [f"class {i}" for i in range(7)]


def shard(folder):
    arrays = {name: x.read() for name, x in tensors.read(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    names = sorted(arrays)
    places = {name: f"model-{i % 3}.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        tensors.write(folder / file, {name: arrays[name] for name in names if places[name] == file})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index, places


def test_shards_are_put_together(saved, folder):
    index, places = shard(folder)
    for source in (folder, index):
        again = huggingface.read(source)
        jax.tree.map(np.testing.assert_array_equal, again.params, saved.params)
    first = next(iter(places))
    (folder / places[first]).unlink()
    with pytest.raises(FileNotFoundError, match=f"{places[first]} is missing"):
        huggingface.read(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "it has no weight_map"),
        ({"weight_map": []}, "it has no weight_map"),
        ({"weight_map": {"x": 3}}, "it has no weight_map"),
        ({"weight_map": {"x": "../elsewhere.safetensors"}}, "is not the name of a file in it"),
        ({"weight_map": {"x": "model-0.safetensors"}}, r"shards lack what it lists: x \(model-0"),
    ],
)
def test_a_broken_index_is_refused(folder, index, message):
    path, _ = shard(folder)
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        huggingface.read(folder)


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"has no weights file; expected one of model\.safet"
    ):
        huggingface.read(tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing; it describes the model"):
        huggingface.read(folder)
    assert huggingface.read(folder, spec=CONV).model.spec.stem == "conv"


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff"])
def test_a_broken_config_is_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json: broken file"):
        huggingface.read(folder)


def test_weights_that_do_not_fit_are_listed(folder):
    edit_config(folder, d_latents=24)
    with pytest.raises(ValueError, match="weights do not fit the model") as error:
        huggingface.read(folder)
    assert "perceiver.embeddings.latents: shape (5, 12), the model needs (5, 24)" in str(
        error.value
    )


def test_torch_files_need_torch(folder, monkeypatch):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(ValueError, match="PyTorch is not installed: `pip install torch`"):
        huggingface.read(folder)


@pytest.mark.parametrize("content", ["list", "nested", "code", "noise"])
def test_what_torch_does_not_hold_for_weights_is_refused(folder, content):
    torch = pytest.importorskip("torch", reason="needs the extra `parity`")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    if content == "noise":
        path.write_bytes(bytes(range(256)))
    else:
        unsafe = {"list": [torch.zeros(3)], "nested": {"a": {"b": torch.zeros(3)}}}
        torch.save(unsafe.get(content, {"a": pathlib.Path("x")}), path)
    message = "not a state dict" if content in ("list", "nested") else "PyTorch rejects it"
    with pytest.raises(ValueError, match=message):
        huggingface.read(folder)


def test_a_model_that_cannot_be_said_leaves_no_folder(saved, tmp_path):
    other = dataclasses.replace(saved, model=perceiver.build(CONV | {"stem_channels": 5}))
    with pytest.raises(ValueError, match="stem_channels=5"):
        huggingface.save(tmp_path / "other", other)
    assert not (tmp_path / "other").exists()


def test_a_failed_write_leaves_the_old_files(saved, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        huggingface.save(folder, saved)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
