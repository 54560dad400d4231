"""GLUE from TFDS's files to scores: classes, numbers, and all tasks at once.

All tasks are of these forms; test_text_classification.py has a step of each, and of the model's.
"""

import jax
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from configs import glue, text_classification
from tests.data import glue_sets
from train import evaluate, experiment, loop
from train.guard.broken_examples import BrokenExamples
from train.run import trained_model


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for task in glue.TASKS:
        glue_sets.write(root, task, size=23)
    return root


def small(variant, sets):
    config = text_classification.shrink(glue.get_config(variant))
    config.data.data_dir = str(sets)
    config.data.update(batch_size=16, eval_batch_size=16)
    config.model.layers = 1
    config.train.epochs = 0.0  # but two steps
    config.placement = "single"
    return config


def scored(model, folder):
    """Returns the scores of a model, the files about it, and its predictions."""
    broken = BrokenExamples(print)
    scores, files = evaluate.assess(model, folder, broken)
    _, predictions = evaluate.predict(model.experiment, model.state, broken)
    return scores, files, predictions


def expected(task, label, logits):
    """The metric of the paper's table."""
    if task == "stsb":
        return scipy.stats.pearsonr(label.astype(float), logits[:, 0].astype(float)).statistic
    found = logits.argmax(axis=-1)
    if task == "cola":
        return sklearn.metrics.matthews_corrcoef(label, found)
    return sklearn.metrics.accuracy_score(label, found)


@pytest.mark.parametrize("variant", ["mnli", "stsb"])
def test_a_task_is_scored(variant, sets, rng, tmp_path):
    """With weights that are drawn: what training starts from has zeros where logits are made."""
    made = experiment.make(small(variant, sets))
    state = jax.tree.map(
        lambda x: rng.normal(scale=0.1, size=x.shape).astype(x.dtype), made.abstract_state()
    )
    model = trained_model.TrainedModel(made, made.placement.place(state), source="drawn")
    scores, files, found = scored(model, tmp_path)
    assert len(found["label"]) == (46 if variant == "mnli" else 23)
    assert scores["score"] == pytest.approx(expected(variant, found["label"], found["logits"]))
    assert np.isfinite(scores["loss"])
    assert ("classes" in files) == (variant != "stsb")


def test_all_tasks_are_trained_together(sets, tmp_path):
    loop.run(small("multitask-tokens", sets), tmp_path / "run")
    scores, _, found = scored(trained_model.from_run(tmp_path / "run"), tmp_path / "evaluation")
    start, each = 0, []
    for number, (task, classes) in enumerate(glue.TASKS.items()):
        rows = found["task"] == number
        assert rows.sum() == (46 if task == "mnli" else 23)
        logits = found["logits"][rows, start : start + classes]
        each.append(expected(task, found["label"][rows], logits))
        assert scores[f"{task}/score"] == pytest.approx(each[-1])
        start += classes
    assert scores["score"] == pytest.approx(np.mean(each))


@pytest.mark.parametrize("variant", glue.VARIANTS)
def test_the_sets_of_every_variant_fit_its_model(variant, sets):
    config = text_classification.shrink(glue.get_config(variant))
    config.data.data_dir = str(sets)
    made = experiment.make(config)
    names = list(glue.TASKS) if variant.startswith("multitask") else [variant.partition("_")[0]]
    sets_of_validation = len(names) + ("mnli" in names and "_" not in variant)
    assert made.info.examples == {"train": 23 * len(names), "validation": 23 * sets_of_validation}
    assert made.task.model.spec.classes == sum(glue.TASKS[name] for name in names)
