"""The task of labelling texts: losses, scores, weights of a language model, steps of every task."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

import perceiver
from configs import glue, text_classification
from data import DatasetInfo
from perceiver.kinds import released
from perceiver.weights import mapping, native
from train import experiment, step, tasks
from train.objective import text_metrics
from train.run.init_from import fit

LENGTH, BATCH = 13, 6
MODEL = {
    "kind": "text_classifier",
    "max_length": LENGTH + 1,
    "embedding_channels": 6,
    "latents": 3,
    "latent_channels": 4,
    "layers": 1,
    "cross_qk_channels": 4,
    "self_heads": 2,
    "query_heads": 2,
    "query_qk_channels": 4,
}
LABELS = {task: tuple(f"class {i}" for i in range(n)) for task, n in glue.TASKS.items()}


def make(names, **model):
    config = ml_collections.ConfigDict({"task": "text_classification"})
    classes = tuple(glue.TASKS[name] for name in names)
    model = MODEL | {"classes": sum(classes)} | model
    several = len(names) > 1
    if several:
        model |= {"tasks": names, "task_classes": classes}
    config.model = ml_collections.ConfigDict(model)
    config.data = ml_collections.ConfigDict({"seq_len": LENGTH, "tokenizer": "bytes"})
    config.loss = ml_collections.ConfigDict({"label_smoothing": 0.0})
    labels = tuple(f"{name}: {x}" if several else x for name in names for x in LABELS[name])
    info = DatasetInfo(
        f"tfds_text:glue/{names[0]}",
        {"train": 31, "validation": 7},
        labels,
        tasks=dict(zip(names, classes, strict=True)),
    )
    return tasks.make(config, info)


def draw(rng, names):
    """A batch whose last row does not count."""
    task = rng.integers(len(names), size=BATCH).astype("i4")
    classes = np.array([glue.TASKS[names[i]] for i in task])
    label = np.where(classes > 1, rng.integers(classes), rng.random(BATCH) * 5)
    numbers = 1 in {glue.TASKS[name] for name in names}
    batch = {
        "tokens": rng.integers(6, 262, (BATCH, LENGTH), np.int32),
        "input_mask": np.arange(LENGTH)[None] < rng.integers(1, LENGTH, (BATCH, 1)),
        "label": label.astype("f4" if numbers else "i4"),
        "mask": np.arange(BATCH) < BATCH - 1,
    }
    return batch | {"task": task} if len(names) > 1 else batch


def test_several_tasks_share_a_loss_and_keep_their_scores(rng):
    names = ("cola", "mnli", "stsb")
    task = make(names)
    params, state = jax.jit(task.model.init)(jax.random.key(3))
    batch = draw(rng, names)
    batch["task"][:3] = [0, 1, 2]
    batch["label"][:3] = [1, 2, 3.25]
    sums, kept = jax.jit(task.predict)(params, state, batch)
    logits, _ = jax.jit(task.model.apply)(params, state, None, batch)
    np.testing.assert_allclose(kept["logits"], logits, atol=1e-6)
    logits, total, right = np.asarray(logits, np.float64), 0.0, {"cola": [], "mnli": []}
    for row, number, label in list(zip(logits, batch["task"], batch["label"], strict=True))[:-1]:
        own = row[task.model.spec.columns[names[number]]]
        if names[number] == "stsb":
            total += (own[0] - label) ** 2
        else:
            total += np.log(np.exp(own).sum()) - own[int(label)]
            right[names[number]].append(own.argmax() == label)
    assert float(sums["loss"][0]) == pytest.approx(total, rel=1e-5)
    assert float(sums["loss"][1]) == BATCH - 1
    for name, hits in right.items():
        assert [float(x) for x in sums[f"{name}/accuracy"]] == [sum(hits), len(hits)]
    assert "stsb/accuracy" not in sums


def test_labels_of_other_tasks_leave_the_gradient_finite(rng):
    names = ("cola", "stsb")
    task = make(names)
    params, state = jax.jit(task.model.init)(jax.random.key(3))
    batch = draw(rng, names)
    batch["task"][:], batch["label"][:] = 1, 4.75  # no class of the first task

    def loss(params):
        sums, _ = task.loss(params, state, jax.random.key(0), batch, is_training=True)
        return sums["loss"][0]

    flat = mapping.flatten(jax.jit(jax.grad(loss))(params))
    assert all(np.isfinite(x).all() for x in flat.values())
    assert not np.any(flat["outputs/head_cola/out/w"])
    assert np.any(flat["outputs/head_stsb/out/w"])


def test_scores_of_a_split_are_the_tables(rng, tmp_path):
    task = make(("cola",))
    predictions = {
        "logits": rng.normal(size=(31, 2)).astype("f4"),
        "label": rng.integers(2, size=31).astype("i4"),
        "task": np.zeros(31, "i4"),
    }
    scores, files = task.assess(predictions, tmp_path)
    found = predictions["logits"].argmax(axis=-1)
    expected = text_metrics.classification(predictions["label"], found, 2)
    assert scores == expected | {"score": expected["matthews"]}
    assert sorted(files) == ["classes", "confusions"]
    several = make(("cola", "stsb"))
    logits = np.concatenate([predictions["logits"], rng.normal(size=(31, 1))], axis=-1)
    label = np.where(np.arange(31) < 17, predictions["label"], rng.random(31))
    both = {"logits": logits, "label": label, "task": np.arange(31) // 17}
    scores, files = several.assess(both, None)
    first = text_metrics.classification(label[:17], found[:17], 2)["matthews"]
    second = text_metrics.regression(label[17:], logits[17:, 2])["pearson"]
    assert scores["cola/score"] == first
    assert scores["stsb/score"] == pytest.approx(second)
    assert scores["score"] == pytest.approx((first + second) / 2)
    assert files == {}


def test_the_encoder_of_a_language_model_is_taken_bit_by_bit(tmp_path):
    language = perceiver.build(MODEL | {"kind": "masked_lm"})
    params, state = jax.jit(language.init)(jax.random.key(5))
    theirs = mapping.flatten(jax.device_get(params))
    ours = make(("mnli",)).model
    fresh, net_state = jax.jit(ours.init)(jax.random.key(7))
    before = mapping.flatten(jax.device_get(fresh))
    whole = step.TrainState(jnp.int32(0), fresh, net_state, (), None)
    saved = native.Saved(language, params, state, {})
    taken, _ = fit(saved, ours.spec, whole, "it", text_classification.HEAD)
    flat = mapping.flatten(jax.device_get(taken))
    afresh = {key for key in flat if key.startswith(("outputs/queries", "outputs/head"))}
    assert flat.keys() - afresh == theirs.keys() - {"outputs/b", "outputs/queries/table"}
    for key, x in flat.items():
        np.testing.assert_array_equal(x, (before if key in afresh else theirs)[key], err_msg=key)
    with pytest.raises(ValueError, match="outputs/head/hidden/w: there None, here"):
        fit(saved, ours.spec, whole, "it")


@pytest.fixture(scope="module")
def released_language_model():
    """Its shapes."""
    language = perceiver.build(released.MODELS["masked-lm-bytes"])
    params, state = jax.eval_shape(language.init, jax.random.key(0))
    return native.Saved(language, params, state, {})


@pytest.mark.parametrize(
    "variant", ["mnli", "multitask-query", "multitask-shared", "multitask-tokens"]
)
def test_a_variant_of_glue_fits_the_released_language_model(variant, released_language_model):
    """Shapes alone: what is not ignored is there, and what is ignored is somewhere."""
    config = glue.get_config(variant)
    classes = glue.TASKS.get(variant.partition("_")[0], 0)
    spec = config.model.to_dict() | ({"classes": classes} if classes else {})
    ours = perceiver.build(spec)
    fresh, net_state = jax.eval_shape(ours.init, jax.random.key(0))
    whole = step.TrainState(0, fresh, net_state, (), None)
    saved, ignored = released_language_model, config.init_from.ignore
    taken, _ = fit(saved, ours.spec, whole, variant, ignored)
    assert mapping.flatten(taken).keys() == mapping.flatten(fresh).keys()
    assert config.data.seq_len == ours.spec.text_length


@pytest.mark.parametrize(
    ("names", "model", "message"),
    [
        (("mnli",), {"classes": 2}, r"set model\.classes=3"),
        (("mnli",), {"vocabulary": 97}, r"set model\.vocabulary=262"),
        (("mnli",), {"kind": "masked_lm"}, "needs a text_classifier model"),
        (("mnli",), {"max_length": 11}, r"data\.seq_len=13 is longer than the 11 tokens"),
        (("cola",), {"tasks": ("a", "b"), "task_classes": (1, 1)}, "the model has the tasks"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(names, model, message):
    if model.get("kind") == "masked_lm":
        model = model | {"classes": None}
    with pytest.raises(ValueError, match=message):
        make_without_none(names, model)


def make_without_none(names, model):
    config = ml_collections.ConfigDict({"task": "text_classification"})
    spec = MODEL | {"classes": glue.TASKS[names[0]]} | model
    config.model = ml_collections.ConfigDict({k: x for k, x in spec.items() if x is not None})
    config.data = ml_collections.ConfigDict({"seq_len": LENGTH, "tokenizer": "bytes"})
    config.loss = ml_collections.ConfigDict({"label_smoothing": 0.0})
    info = DatasetInfo("tfds_text:glue/x", {"train": 1, "validation": 1}, LABELS[names[0]])
    return tasks.make(config, info)


@pytest.mark.parametrize("variant", ["stsb", "mnli", "multitask-tokens"])
def test_one_step_of_each_form(variant, rng):
    """The whole step: model, loss, LAMB. All of GLUE is one of these forms."""
    config = glue.get_config(variant)
    several = variant.startswith("multitask")
    names = tuple(glue.TASKS) if several else (variant,)
    form = {"multitask": config.model.multitask} if several else {}
    task = make(names, **form)
    config.optim.update(steps=10, warmup_steps=1)
    optimizer = experiment.optimizers.make(config.optim)
    before = step.init_state(task, optimizer, 0, task.model.example_inputs(1), 0.0)
    take = jax.jit(step.make_train_step(task, optimizer, seed=0))
    batch = draw(rng, names)
    state, _ = take(before, batch)  # the rate of a warm-up begins at 0
    state, sums = take(state, batch)
    assert step.is_finite({name: (float(a), float(b)) for name, (a, b) in sums.items()})
    old, new = mapping.flatten(before.params), mapping.flatten(state.params)
    still = [key for key in old if np.array_equal(old[key], new[key])]
    assert not [key for key in still if "head" not in key and "key/b" not in key]
