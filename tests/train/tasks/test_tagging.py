"""The task of tagging clips, on random ones: what its loss, scores and files are."""

import csv

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from data import DatasetInfo
from perceiver.inputs.clip import BLACK
from perceiver.media import video_files
from train import tasks
from train.objective import ranking
from train.tasks import tagging

BATCH, WINDOWS, CLASSES = 5, 3, 7
LABELS = tuple(f"class {index}" for index in range(CLASSES))
MODEL = {
    "kind": "clip_classifier",
    "classes": CLASSES,
    "video_shape": (2, 8, 8, 3),
    "video_patch": (1, 4, 4),
    "video_bands": 1,
    "audio": "raw",
    "samples": 3_840,
    "samples_per_patch": 384,
    "audio_bands": 2,
    "latents": 5,
    "latent_channels": 8,
    "layers": 1,
    "self_heads": 2,
    "query_channels": 8,
}
DATA = {
    "video": True,
    "audio": True,
    "frames": 2,
    "image_size": 8,
    "audio_samples": 3_840,
    "eval_windows": WINDOWS,
}


def make(model=None, labels=LABELS, **data):
    config = ml_collections.ConfigDict({"task": "tagging"})
    config.model = ml_collections.ConfigDict(MODEL | (model or {}))
    config.data = ml_collections.ConfigDict(DATA | data)
    examples = {"train": 11, "validation": 11}
    return tasks.make(config, DatasetInfo("clips:random", examples, labels, (8, 8, 3)))


def draw(rng, *windows):
    """A batch whose last row does not count, and whose first has no class."""
    labels = rng.random((BATCH, CLASSES)) < 0.5
    labels[:, 0], labels[0] = True, False
    return {
        "video": rng.integers(256, size=(BATCH, *windows, 2, 8, 8, 3)).astype(np.uint8),
        "audio": rng.uniform(-1, 1, (BATCH, *windows, 3_840)).astype("f4"),
        "labels": labels,
        "mask": np.arange(BATCH) < BATCH - 1,
    }


def test_a_clip_without_picture_is_what_dropout_makes_of_one():
    pixels = tagging.to_unit(jnp.array([0, 255], jnp.uint8))
    np.testing.assert_array_equal(pixels, [BLACK, 1])


@pytest.fixture(scope="module")
def task():
    return make()


@pytest.fixture(scope="module")
def weights(task):
    params, state = jax.jit(task.model.init)(jax.random.key(3))
    draws = np.random.default_rng(5)
    # Some layers start at zero, and would hide what the inputs are.
    params = jax.tree.map(lambda x: x + 0.1 * draws.normal(size=x.shape).astype("f4"), params)
    return params, state


def logits_of(task, weights, batch, window=...):
    """Logits of one window of each clip, from inputs made by hand."""
    video = batch["video"][:, window].astype("f4") / 127.5 - 1
    inputs = {"video": jnp.asarray(video), "audio": jnp.asarray(batch["audio"][:, window])}
    logits, _ = jax.jit(task.model.apply)(*weights, None, inputs)
    return np.asarray(logits, np.float64)


def test_training_is_on_the_sigmoid_loss_of_one_window(task, weights, rng):
    batch = draw(rng)
    loss = jax.jit(task.loss, static_argnames="is_training")
    sums, _ = loss(*weights, jax.random.key(0), batch, is_training=True)
    logits = logits_of(task, weights, batch)
    nats = np.logaddexp(0, np.where(batch["labels"], -logits, logits)).mean(-1)
    total, weight = sums["loss"]
    assert float(total) == pytest.approx(float(nats[:-1].sum()), rel=1e-4)
    assert float(weight) == BATCH - 1
    best = logits.argmax(axis=-1)
    hits = sum(batch["labels"][i, best[i]] for i in range(1, BATCH - 1))
    assert [float(x) for x in sums["hit"]] == [hits, BATCH - 2]  # one of no class cannot be hit


def test_evaluation_averages_the_scores_of_windows(task, weights, rng):
    batch = draw(rng, WINDOWS)
    sums, kept = jax.jit(task.predict)(*weights, batch)
    each = [1 / (1 + np.exp(-logits_of(task, weights, batch, v))) for v in range(WINDOWS)]
    scores = np.mean(each, axis=0)
    assert np.std(each, axis=0).max() > 0.01
    np.testing.assert_allclose(kept["scores"], scores, atol=1e-5)
    np.testing.assert_array_equal(kept["labels"], batch["labels"])
    nats = -np.where(batch["labels"], np.log(scores), np.log(1 - scores)).mean(-1)
    assert float(sums["loss"][0]) == pytest.approx(nats[:-1].sum(), rel=1e-4)
    loss = jax.jit(task.loss, static_argnames="is_training")
    in_training, _ = loss(*weights, None, batch, is_training=False)
    for name, pair in sums.items():
        np.testing.assert_allclose(in_training[name], pair, rtol=1e-6)


def test_a_modality_that_the_model_lacks_is_not_asked_for(rng):
    for name, model in (("video", {"video_shape": ()}), ("audio", {"audio": "none"})):
        task = make(model, **{name: False})
        batch = draw(rng, WINDOWS)
        del batch[name]
        params, state = jax.eval_shape(task.model.init, jax.random.key(3))
        _, kept = jax.eval_shape(task.predict, params, state, batch)
        assert kept["scores"].shape == (BATCH, CLASSES)


def test_the_assessment_is_the_rankings(task, rng, tmp_path):
    labels = rng.random((31, CLASSES)) < 0.5
    labels[:, 2] = False
    predictions = {"scores": rng.random((31, CLASSES), np.float32), "labels": labels}
    scores, files = task.assess(predictions, tmp_path)
    expected = ranking.rank(predictions["scores"], labels, classes=CLASSES)
    assert scores == expected.summary()
    assert scores["classes_counted"] == CLASSES - 1
    with files["classes"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == list(LABELS)
    assert rows[2]["average_precision"] == ""
    assert files["precision and recall"].stat().st_size > 1000
    assert task.assess(predictions, None) == (scores, {})
    with pytest.raises(ValueError, match="transposed"):
        task.assess({name: x.T for name, x in predictions.items()}, None)


def test_samples_are_clips_of_picture_and_sound(task, rng, tmp_path):
    batch = draw(rng, WINDOWS)
    files = task.samples(batch, tmp_path)
    clips = sorted(files["sample clips"].iterdir())
    assert [clip.suffix for clip in clips] == [".mp4"] * (BATCH - 1)
    assert clips[0].stem == "0_label_none"
    assert clips[1].stem.startswith("1_label_class_0")
    video, _ = video_files.read(clips[1], (8, 8), frames_per_second=25, sample_rate=48_000)
    assert video.shape == (2, 8, 8, 3)
    del batch["video"]
    alone = make({"video_shape": ()}, video=False)
    files = alone.samples(batch, tmp_path / "sound")
    assert [clip.suffix for clip in sorted(files["sample clips"].iterdir())] == [".wav"] * 4


def test_what_a_user_needs_is_in_the_model(task):
    assert task.usage == {
        "labels": list(LABELS),
        "video": {"frames_per_second": 25},
        "audio": {"sample_rate": 48_000},
        "windows": WINDOWS,
    }


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ({}, {"video": False}, r"the model has video; set data\.video=True"),
        ({"audio": "none"}, {}, r"the model has no audio; set data\.audio=False"),
        ({}, {"frames": 3}, r"the data gives \(3, 8, 8, 3\)"),
        ({}, {"audio_samples": 384}, r"data\.audio_samples=384"),
        ({"sample_rate": 16_000}, {}, r"prepared at 48000"),
        ({}, {"labels": LABELS[:3]}, r"set model\.classes=3"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_refused(model, data, message):
    with pytest.raises(ValueError, match=message):
        make(model, **data)


def test_another_kind_of_model_is_refused():
    config = ml_collections.ConfigDict({"task": "tagging"})
    config.model = ml_collections.ConfigDict(
        {"kind": "masked_lm", "max_length": 7, "latents": 5, "latent_channels": 8, "layers": 1}
    )
    config.data = ml_collections.ConfigDict(DATA)
    with pytest.raises(ValueError, match="needs a clip_classifier model"):
        tasks.make(config, None)
