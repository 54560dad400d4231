"""Every config builds, names its variants, and has a smoke form that trains."""

import contextlib
import dataclasses
import importlib
import pathlib

import jax
import ml_collections
import pytest

import train.loop
from data import DatasetInfo
from perceiver.kinds import specs
from tests.train import runs
from train import experiment, step
from train.resolve import resolve

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "common"))


def variants(name):
    return getattr(importlib.import_module(f"configs.{name}"), "VARIANTS", ("",))


CASES = [(name, variant) for name in NAMES for variant in variants(name)]

# GLUE's variants have one smoke form; tests/train/tasks/test_glue.py trains each on its own data.
SMOKE = [(name, variant) for name, variant in CASES if name != "glue" or variant == "cola"]


def stand_in(section):
    """The facts of a data set of ImageNet's size, which need not be here."""
    return DatasetInfo(
        name="stand-in",
        examples={"train": 1_281_167, "validation": 50_000},
        labels=tuple(map(str, range(1000))),
        image_shape=(section.image_size, section.image_size, section.channels),
    )


def get_config(name, arg):
    return importlib.import_module(f"configs.{name}").get_config(arg)


@pytest.mark.core
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_it_builds(name, variant, shapes_of):
    config = get_config(name, variant)
    assert isinstance(config, ml_collections.ConfigDict)
    assert config.is_locked
    resolved = resolve(config, stand_in(config.data))
    params, _ = shapes_of(resolved.model.to_dict())
    assert params
    assert resolved.optim.steps == resolved.train.steps > 0
    config.train.steps = 7
    assert resolve(config, stand_in(config.data)).optim.steps == 7
    smoke = get_config(name, f"{variant},smoke")
    smoke = resolve(smoke, stand_in(smoke.data))
    assert specs.parse(smoke.model.to_dict()).kind == config.model.kind
    assert smoke.train.steps == smoke.optim.steps == 2


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_variant_is_refused(name):
    with pytest.raises(ValueError, match="unknown config variant 'nonsense'; choose one of"):
        get_config(name, "nonsense,smoke")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_field_is_refused(name):
    config = get_config(name, "")
    with pytest.raises(AttributeError, match="lr"):
        config.optim.learning_rat = 1.0


def by_day(cases, chosen):
    """Cases for parametrize: all but the chosen ones are slow."""
    return [pytest.param(*case, marks=() if case in chosen else pytest.mark.slow) for case in cases]


def first_of_each(kinds):
    """The first case for each value of {case: value}."""
    found = {}
    for case, kind in kinds.items():
        found.setdefault(kind, case)
    return list(found.values())


def form(name, variant):
    """What tells smoke forms apart: task, kind of model, file, parts, loss."""
    c = get_config(name, f"{variant},smoke")
    parts = c.data.video, c.data.audio, c.model.get("audio"), c.model.get("body")
    return c.task, c.model.kind, name, parts, c.loss.objective


FORMS = {case: form(*case) for case in SMOKE}
TRAINED = first_of_each({case: form[:-1] for case, form in FORMS.items()})
# Forms that compile sooner than the first with the same model and task.
SOON = [("audioset", "embedded-video"), ("text_classification", "embedded")]
PAIRS = first_of_each({case: FORMS[case][:2] for case in [*SOON, *SMOKE]})
TASKS = first_of_each({case: FORMS[case][0] for case in PAIRS})
# Tasks of which a run is trained for other tests too.
SHARED = {case: FORMS[case][0] for case in TASKS if FORMS[case][0] in runs.CONFIGS}


@pytest.mark.parametrize(("name", "variant"), by_day(SMOKE, set(first_of_each(FORMS)) - set(PAIRS)))
def test_its_smoke_form_takes_a_step(name, variant):
    """Shapes alone, of true batches: nothing is compiled."""
    run = experiment.make(get_config(name, f"{variant},smoke"))
    state = jax.eval_shape(run.init_state)
    with contextlib.closing(run.batches("train", train=True)) as batches:
        train_step = step.make_train_step(run.task, run.optimizer, seed=0)
        after, sums = jax.eval_shape(
            train_step, dataclasses.replace(state, ema=None), next(batches)
        )
    assert jax.tree.structure(after.params) == jax.tree.structure(state.params)
    shapes = [[x.shape for x in jax.tree.leaves(tree.params)] for tree in (after, state)]
    assert shapes[0] == shapes[1]
    assert "loss" in sums
    assert "loss" in jax.eval_shape(step.make_eval_step(run.task), state, run.first_batch())


def check_training(config, folder):
    train.loop.run(config, folder)
    check_run(config.task, folder)


def check_run(task, folder):
    results = runs.results(folder)
    assert results["loss"] > 0
    if task == "masked_lm":  # what counting achieves on the same masks
        assert 0 < results["bigram/bits"] < 8
        assert 0 < results["unigram/bits"] < 8
    assert (folder / "curves.png").stat().st_size > 1000
    assert (folder / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        pytest.param(*case, marks=pytest.mark.core if case in TASKS else pytest.mark.slow)
        for case in PAIRS
        if case not in SHARED
    ],
)
def test_each_task_trains_each_kind_of_model(name, variant, tmp_path):
    """On one device, a single block of layers, few examples: that takes half of the time."""
    config = get_config(name, f"{variant},smoke")
    config.placement = "single"
    if config.data.source.startswith("stdlib"):  # others are small
        config.data.eval_examples = 64
    if "blocks" in config.model:
        config.model.blocks = 1
    check_training(config, tmp_path)


@pytest.mark.core
@pytest.mark.parametrize("task", SHARED.values())
def test_a_shared_run_is_complete(task, trained):
    check_run(task, trained(task))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), TRAINED)
def test_its_smoke_form_trains(name, variant, tmp_path):
    """As it is: on all devices."""
    check_training(get_config(name, f"{variant},smoke"), tmp_path)
