"""Every config builds, names its variants, and has a smoke form that trains."""

import contextlib
import dataclasses
import importlib
import pathlib

import jax
import ml_collections
import pytest

import perceiver
import train.loop
from data import DatasetInfo
from data.prepare.synthetic import scenes
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


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_it_builds(name, variant):
    config = get_config(name, variant)
    assert isinstance(config, ml_collections.ConfigDict)
    assert config.is_locked
    resolved = resolve(config, stand_in(config.data))
    model = perceiver.build(resolved.model.to_dict())
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    assert params
    assert resolved.optim.steps == resolved.train.steps > 0
    config.train.steps = 7
    assert config.optim.steps == 7  # a reference, not a copy


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_variant_is_refused(name):
    with pytest.raises(ValueError, match="unknown config variant 'nonsense'; choose one of"):
        get_config(name, "nonsense,smoke")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_field_is_refused(name):
    config = get_config(name, "")
    with pytest.raises(AttributeError, match="lr"):
        config.optim.learning_rat = 1.0


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory):
    """Where the smallest set of scenes is prepared, which clips' smoke forms train on."""
    folder = tmp_path_factory.mktemp("data")
    scenes.prepare(folder, train_clips=9, eval_clips=9, seconds=0.6)
    return folder


def get_smoke(name, variant, request):
    config = get_config(name, f"{variant},smoke")
    if config.data.source == "clips:scenes":
        config.data.data_dir = str(request.getfixturevalue("scenes_folder"))
    return config


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), SMOKE)
def test_its_smoke_form_takes_a_step(name, variant, request):
    """Shapes alone, of true batches: nothing is compiled."""
    run = experiment.make(get_smoke(name, variant, request))
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


def trained():
    """One case of each file, kind of model and modality: to compile takes long."""
    found = {}
    for name, variant in SMOKE:
        config = get_config(name, f"{variant},smoke")
        inputs = (config.data.video, config.data.audio, config.model.get("audio"))
        found.setdefault((name, config.model.kind, *inputs), (name, variant))
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), trained())
def test_its_smoke_form_trains(name, variant, tmp_path, request):
    config = get_smoke(name, variant, request)
    results = train.loop.run(config, tmp_path)
    assert results["loss"] > 0
    if config.task == "masked_lm":  # what counting achieves on the same masks
        assert 0 < results["bigram/bits"] < 8
        assert 0 < results["unigram/bits"] < 8
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert (tmp_path / "model" / "model.safetensors").is_file()
