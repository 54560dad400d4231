"""`python -m perceiver.predict`: from files to labels."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import perceiver
from perceiver import images, predict
from perceiver.weights import native

SPEC = {
    "kind": "image_classifier",
    "image_shape": (8, 12, 1),
    "classes": 3,
    "bands": 3,
    "latents": 5,
    "latent_channels": 16,
    "layers": 1,
    "self_heads": 2,
    "query_channels": 16,
}
LABELS = ["ant", "bee", "cat"]
USAGE = {"labels": LABELS, "image": {"mean": [0.3], "std": [0.4], "crop_fraction": 1.0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run's folder with an exported model, without its checkpoints."""
    run = tmp_path_factory.mktemp("run")
    model = perceiver.build(SPEC)
    params, state = jax.jit(model.init)(jax.random.key(3))
    native.save(run / "model", model, params, state, USAGE)
    return run


@pytest.fixture
def files(tmp_path, rng):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, shape in zip(paths, [(8, 12), (31, 17, 3), (40, 90)], strict=True):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return paths


def test_probabilities_are_the_models_own(folder, files):
    saved = predict.load(folder)
    ((best, *_),) = predict.classify(saved, files[1:2], top_k=3)
    picture = images.to_pil(files[1], 1)
    pixels = images.resize(picture, (8, 12), images.central_box(picture, 1.0))
    image = images.normalise(pixels, [0.3], [0.4])[None]
    logits, _ = saved.model.apply(saved.params, saved.state, None, {"image": image})
    expected = np.asarray(jax.nn.softmax(logits))[0]
    assert best[0] == LABELS[expected.argmax()]
    assert best[1] == pytest.approx(expected.max(), abs=1e-6)


def test_labels_are_sorted_and_any_number_of_files_will_do(folder, files, monkeypatch):
    monkeypatch.setattr(predict, "BATCH", 2)
    results = predict.classify(predict.load(folder), files, top_k=9)
    assert [len(labels) for labels in results] == [3, 3, 3]
    for labels in results:
        values = [p for _, p in labels]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=1e-5)


def test_the_command_prints_a_line_or_an_object_per_file(folder, files, capsys):
    predict.main([str(folder), *map(str, files), "--top", "1"])
    assert len(capsys.readouterr().out.splitlines()) == 3
    predict.main([str(folder / "model"), str(files[0]), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["file"] == str(files[0])
    assert {row["label"] for row in shown["labels"]} == set(LABELS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}", "gone.png"], "no image file gone.png"),
        (["gone", "{file}"], "gone is no folder"),
        (["{empty}", "{file}"], "config.json is missing"),
        (["{running}", "{file}"], "has not exported its model yet"),
        (["{folder}", "{file}", "--top", "0"], "--top must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message, folder, files, tmp_path, capsys):
    (tmp_path / "running" / "checkpoints").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    places = {"folder": folder, "file": files[0]}
    places |= {"empty": tmp_path / "empty", "running": tmp_path / "running"}
    with pytest.raises(SystemExit) as stop:
        predict.main([word.format(**places) for word in arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_model_that_classifies_no_images_is_refused(tmp_path, text_spec):
    model = perceiver.build(text_spec)
    params, state = jax.jit(model.init)(jax.random.key(0))
    native.save(tmp_path, model, params, state)
    with pytest.raises(ValueError, match="holds a masked_lm model"):
        predict.load(tmp_path)
