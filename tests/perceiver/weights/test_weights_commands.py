"""`python -m perceiver.weights`: what is converted is the same model, what is said is true."""

import functools
import json
import pickle
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest

import perceiver
from perceiver.kinds import released
from perceiver.weights import (
    __main__ as commands,
)
from perceiver.weights import deepmind, formats, native
from perceiver.weights.mapping import flatten, translate_back, unflatten
from perceiver.weights.stored import StoredArray

CONV = {
    "kind": "image_classifier",
    "image_shape": (20, 24, 3),
    "classes": 3,
    "stem": "conv",
    "stem_channels": 64,
    "max_resolution": (56, 56),
    "latents": 5,
    "latent_channels": 12,
    "layers": 2,
    "self_heads": 2,
    "query_channels": 12,
    "query_residual": True,
}


@pytest.fixture(scope="module")
def saved(small_text_spec, draw_saved):
    return draw_saved(small_text_spec)


@pytest.fixture(scope="module")
def source(saved, tmp_path_factory):
    """The model as an exported folder."""
    folder = tmp_path_factory.mktemp("native") / "model"
    formats.save(folder, saved)
    return folder


def write_pickle(path, saved):
    theirs = unflatten(translate_back(saved.params, deepmind.rules(saved.model.spec)))
    path.write_bytes(pickle.dumps(theirs, protocol=4))
    return path


def run(*argv):
    return commands.main([str(x) for x in argv])


def assert_same(one, other):
    for x, y in ((one.params, other.params), (one.state, other.state)):
        assert flatten(x).keys() == flatten(y).keys()
        jax.tree.map(functools.partial(np.testing.assert_array_equal, strict=True), x, y)


# convert


def test_there_and_back_is_the_same_bit_for_bit(saved, source, tmp_path, capsys):
    assert run("convert", source, tmp_path / "a" / "hf", "--to", "huggingface") == 0
    assert run("convert", tmp_path / "a" / "hf", tmp_path / "b", "--to", "native") == 0
    assert_same(formats.load(tmp_path / "b"), saved)
    assert formats.detect(tmp_path / "a" / "hf") == "huggingface"
    assert "masked_lm" in capsys.readouterr().out
    assert {x.name for x in tmp_path.iterdir()} == {"a", "b"}
    assert {x.name for x in (tmp_path / "a").iterdir()} == {"hf"}


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_with_a_spec_of_its_own(saved, small_text_spec, tmp_path, wrapped):
    path = write_pickle(tmp_path / "x.pickle", saved)
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"model": small_text_spec} if wrapped else small_text_spec))
    assert run("convert", path, tmp_path / "out", "--to", "native", "--spec", spec) == 0
    assert_same(formats.load(tmp_path / "out"), saved)


def test_a_pickle_of_unknown_size_asks_for_a_spec(saved, tmp_path, capsys):
    path = write_pickle(tmp_path / "x.pickle", saved)
    assert run("convert", path, tmp_path / "out", "--to", "native") == 1
    assert "latent_channels=8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_layout_of_the_kernel_is_the_targets_or_the_sources(tmp_path, draw_saved):
    saved = draw_saved(CONV)
    formats.save(tmp_path / "native", saved)
    for kernel in ("hub", "torch"):
        option = "--conv-kernel", kernel
        theirs, ours = tmp_path / kernel, tmp_path / f"{kernel} again"
        assert run("convert", tmp_path / "native", theirs, "--to", "huggingface", *option) == 0
        assert run("convert", theirs, ours, "--to", "native", *option) == 0
        params = formats.load(ours).params  # of the state, their file has the averages only
        jax.tree.map(np.testing.assert_array_equal, params, saved.params)
    assert run("convert", tmp_path / "hub", tmp_path / "x", "--to", "native", *option) == 0
    name = next(name for name, x in flatten(saved.params).items() if x.ndim == 4)
    swapped = flatten(formats.load(tmp_path / "x").params)[name]
    np.testing.assert_array_equal(swapped, flatten(saved.params)[name].swapaxes(0, 1))


def test_an_option_without_use_is_refused(source, tmp_path, capsys):
    argv = "convert", source, tmp_path / "x", "--to", "native"
    assert run(*argv, "--conv-kernel", "hub") == 1
    assert "applies to Hugging Face files" in capsys.readouterr().err
    assert run(*argv, "--spec", "imagenet-fourier") == 1
    assert "omit spec" in capsys.readouterr().err
    assert run(*argv, "--spec", "imagenet-furrier") == 1
    assert "neither a file nor one of imagenet-fourier" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_not_overwritten(source, tmp_path, capsys):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "precious").touch()
    assert run("convert", source, tmp_path / "x", "--to", "native") == 1
    assert "x already exists; remove it" in capsys.readouterr().err
    assert [x.name for x in (tmp_path / "x").iterdir()] == ["precious"]


def test_a_failure_leaves_nothing_behind(source, tmp_path, monkeypatch, capsys):
    def fail(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native.files, "write", fail)  # after the arrays were written
    assert run("convert", source, tmp_path / "x", "--to", "native") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# inspect


def inspect_json(capsys, *argv):
    assert run("inspect", *argv, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_inspect_counts_what_there_is(saved, source, capsys):
    found = inspect_json(capsys, source)
    arrays = flatten(saved.params)
    size = sum(x.size for x in arrays.values())
    assert found["format"] == "native"
    assert found["model"]["kind"] == "masked_lm"
    assert found["model"]["parameters"] == found["values"] == size
    assert found["bytes"] == 4 * size
    assert found["dtypes"] == {"float32": len(arrays)}
    assert {k: x["shape"] for k, x in found["arrays"].items()} == {
        name: list(x.shape) for name, x in arrays.items()
    }
    assert run("inspect", source) == 0
    text = capsys.readouterr().out
    for part in ("masked_lm", f"{size:,}", "5 x 8", f"{len(arrays)} (", "[B, 17]", "MiB"):
        assert part in text
    assert "latents/table" not in text
    assert run("inspect", source, "--arrays") == 0
    assert "latents/table" in capsys.readouterr().out


def test_inspect_of_every_format_reads_nothing(saved, source, tmp_path, monkeypatch, capsys):
    formats.save(tmp_path / "hf", saved, to="huggingface")
    path = write_pickle(tmp_path / "x.pickle", saved)

    def fail(*args, **kwargs):
        raise AssertionError("an array was read")

    monkeypatch.setattr(np, "fromfile", fail)
    monkeypatch.setattr(
        StoredArray,
        "__post_init__",
        lambda self: object.__setattr__(self, "read", fail),
        raising=False,
    )
    for place, kind in ((source, "native"), (tmp_path / "hf", "huggingface"), (path, "deepmind")):
        found = inspect_json(capsys, place)
        assert found["format"] == kind
        assert found["values"] == sum(x.size for x in flatten(saved.params).values())
        assert (found["model"] is None) == (kind == "deepmind")
    assert "not of the released size" in found["unknown"]
    assert run("inspect", path) == 0
    text = capsys.readouterr().out
    assert "unknown: " in text
    assert "embed/embeddings" in text  # of an unknown model, arrays are listed


def test_inspect_knows_a_released_model_at_full_size(tmp_path, capsys, trees_of):
    """The file has a hole where its 800 MB would be."""
    model = perceiver.build(released.MODELS["masked-lm-bytes"])
    params, _ = trees_of("masked-lm-bytes")
    header, end = {}, 0
    for name, x in flatten(params).items():
        start, end = end, end + 4 * x.size
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + end)
    config = {"format": native.FORMAT, "model": model.spec.to_dict(), "usage": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run("inspect", tmp_path) == 0
    text = capsys.readouterr().out
    assert "the released masked-lm-bytes" in text
    assert "201,108,230" in text
    assert "767.2 MiB" in text


@pytest.mark.parametrize("config", ["", "[]", '{"model_type": "perceiver"}', '{"format": 1}'])
def test_inspect_lists_the_arrays_of_a_model_it_cannot_name(source, tmp_path, capsys, config):
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    found = inspect_json(capsys, tmp_path)
    assert found["model"] is None
    assert "config.json" in found["unknown"]
    assert "latents/table" in found["arrays"]


def test_the_command_runs(tmp_path):
    argv = [sys.executable, "-m", "perceiver.weights", "inspect", str(tmp_path / "x")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "is neither a file nor a folder" in done.stderr
    assert "Traceback" not in done.stderr
