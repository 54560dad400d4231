"""What is saved comes back bit for bit; what is broken is refused, and never half-written."""

import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import perceiver
from perceiver.weights import native

USAGE = {"labels": ["eins", "zwölf", "数"], "mean": [0.5, 0.25]}


@pytest.fixture(scope="module")
def parts():
    """A model with batch norm, whose averages are no round numbers."""
    model = perceiver.build(
        {
            "kind": "image_classifier",
            "image_shape": (8, 12, 3),
            "classes": 3,
            "stem": "conv",
            "stem_channels": 5,
            "bands": 2,
            "latents": 3,
            "latent_channels": 4,
            "layers": 2,
            "self_heads": 2,
            "head": "mean",
        }
    )
    draw = np.random.default_rng(3)
    params, state = jax.tree.map(
        lambda x: np.asarray(draw.standard_normal(x.shape) * 100, x.dtype),
        jax.eval_shape(model.init, jax.random.key(0)),
    )
    return model, params, state


@pytest.fixture(scope="module")
def saved(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "deeply" / "nested"
    native.save(folder, *parts, USAGE)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to be broken."""
    return pathlib.Path(shutil.copytree(saved, tmp_path / "model"))


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_arrays(folder, change):
    path = folder / "model.safetensors"
    arrays = safetensors_numpy.load_file(path)
    change(arrays)
    safetensors_numpy.save_file(arrays, path)


def test_a_folder_describes_itself(parts, saved):
    model, params, state = parts
    again = native.load(saved)
    assert again.model.spec == model.spec
    assert again.usage == USAGE
    assert_same_bits(again.params, params)
    assert_same_bits(again.state, state)
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors"}


def test_a_scalar_of_the_batch_norm_stays_a_scalar(parts, saved):
    counters = [
        leaves["counter"] for leaves in native.load(saved).state.values() if "counter" in leaves
    ]
    assert [counter.shape for counter in counters] == [(), ()]


def test_arrays_that_are_not_contiguous_are_saved_right(parts, tmp_path):
    model, params, state = parts
    strided = jax.tree.map(lambda x: np.asfortranarray(x), params)
    native.save(tmp_path, model, strided, state)
    assert_same_bits(native.load(tmp_path).params, params)


def test_device_arrays_can_be_saved_and_a_folder_overwritten(parts, folder):
    model, params, state = parts
    moved = jax.tree.map(lambda x: jax.device_put(x + 1), params)
    native.save(folder, model, moved, state)
    assert_same_bits(native.load(folder).params, jax.tree.map(lambda x: x + 1, params))
    assert native.load(folder).usage == {}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing; an exported model is"):
        native.load(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/config.json is missing"):
        native.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 7, 0.5, -1])
def test_a_truncated_file_is_refused(folder, name, keep):
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep == 0.5 else keep])
    with pytest.raises(ValueError, match=r"broken file.*export the model again"):
        native.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_something_else_is_refused(folder, name):
    (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    with pytest.raises(ValueError, match="broken file"):
        native.load(folder)


@pytest.mark.parametrize("config", [[], {}, {"format": 1}, {"model_type": "perceiver"}])
def test_a_config_of_something_else_is_refused(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"does not belong to an exported model|not an object"):
        native.load(folder)


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/hostname", "sub/file", 3])
def test_a_file_elsewhere_is_no_tokeniser(folder, name, tmp_path):
    (folder.parent / "secret.txt").write_text("secret")
    edit_config(folder, usage={"tokenizer": "sentencepiece", "file": name})
    with pytest.raises(ValueError, match="is not the name of a file in it"):
        native.load(folder)


def test_a_link_or_a_pipe_is_no_tokeniser(folder):
    edit_config(folder, usage={"tokenizer": "sentencepiece", "file": "tokenizer.model"})
    (folder / "tokenizer.model").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="is no regular file of that folder"):
        native.load(folder)
    (folder / "tokenizer.model").unlink()
    os.mkfifo(folder / "tokenizer.model")
    with pytest.raises(ValueError, match="is no regular file of that folder"):
        native.load(folder)


def test_json_nested_too_deeply_is_refused(folder):
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"config.json: broken file: JSON that is nested too deep"):
        native.load(folder)


def test_a_newer_format_is_refused(folder):
    edit_config(folder, format=native.FORMAT + 1)
    with pytest.raises(ValueError, match="has format 2, known: 1"):
        native.load(folder)


def test_a_config_of_another_model_lists_what_differs(parts, folder):
    edit_config(folder, model=parts[0].spec.to_dict() | {"classes": 7})
    with pytest.raises(ValueError, match=r"weights do not fit config\.json's model") as error:
        native.load(folder)
    assert "outputs/logits/w: file ((4, 3), 'float32'), model ((4, 7), 'float32')" in str(
        error.value
    )
    assert "processor" not in str(error.value)


def test_weights_of_another_project_are_refused(folder):
    safetensors_numpy.save_file({"weight": np.ones(3)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"weights do not fit config\.json's model") as error:
        native.load(folder)
    assert "weight: file ((3,), 'float64'), model None" in str(error.value)


@pytest.mark.parametrize("prefix", ["latents/", "state:"])
def test_a_missing_array_is_named(folder, prefix):
    def drop(arrays):
        key = next(key for key in arrays if key.startswith(prefix))
        del arrays[key]

    edit_arrays(folder, drop)
    with pytest.raises(ValueError, match=r"file None, model \(\("):
        native.load(folder)


def test_another_dtype_is_refused(folder):
    edit_arrays(
        folder, lambda a: a.update({"latents/table": a["latents/table"].astype(np.float16)})
    )
    with pytest.raises(ValueError, match=r"latents/table: file \(\(3, 4\), 'float16'\)"):
        native.load(folder)


def test_a_misspelt_field_in_the_config_is_named(parts, folder):
    edit_config(folder, model=parts[0].spec.to_dict() | {"latent_chanels": 4})
    with pytest.raises(ValueError, match="no field 'latent_chanels'; did you mean"):
        native.load(folder)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_failed_write_leaves_the_old_file_and_no_litter(parts, folder, monkeypatch):
    before = contents(folder)

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        native.save(folder, *parts, {"labels": ["new"]})
    assert contents(folder) == before


def test_a_usage_that_json_cannot_hold_changes_nothing(parts, folder):
    before = contents(folder)
    model, params, state = parts
    moved = jax.tree.map(lambda x: x + 1, params)
    with pytest.raises(TypeError, match="not JSON serializable"):
        native.save(folder, model, moved, state, {"labels": np.zeros(3)})
    assert contents(folder) == before


def test_files_are_readable_by_others(saved):
    assert {path.stat().st_mode & 0o777 for path in saved.iterdir()} == {0o644}
