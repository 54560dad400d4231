"""The tables against the released models: every array of every file has one place, and back."""

import importlib.util
import json
import math
import pathlib

import numpy as np
import pytest

import perceiver
from perceiver.kinds.released import MODELS
from perceiver.weights import batch_norm, deepmind
from perceiver.weights.huggingface import names as huggingface_names
from perceiver.weights.mapping import expand, mismatches
from perceiver.weights.stored import StoredArray

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"

_spec = importlib.util.spec_from_file_location("make_names", GOLDEN / "make_names.py")
make_names = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_names)

NAMES = json.loads((GOLDEN / "names.json").read_text())
KINDS = list(NAMES)


def test_all_six_files_are_covered():
    assert len(KINDS) == 6
    assert set(KINDS) <= set(MODELS)


def released(kind, fmt):
    """Names and shapes as their own code gives them; nothing can be read."""

    def stored(name, shape):
        integer = name.endswith(("counter", "num_batches_tracked"))
        return StoredArray(tuple(shape), np.dtype(np.int64 if integer else np.float32), None)

    names = make_names.expand(NAMES[kind][fmt])
    return {name: stored(name, shape) for name, shape in names.items()}


@pytest.fixture
def tree_of(trees_of):
    def tree_of(name):
        params, state = trees_of(name)
        return {**params, **state}

    return tree_of


@pytest.mark.parametrize("kind", KINDS)
def test_a_released_file_of_deepmind_fills_the_model(kind, tree_of):
    rules = deepmind.rules(perceiver.build(MODELS[kind]).spec)
    tree, source = tree_of(kind), released(kind, "deepmind")
    assert mismatches(source, tree, rules) == []
    assert expand(rules, tree).keys() == source.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_hugging_face_fills_the_model(kind, tree_of):
    rules = huggingface_names.rules(perceiver.build(MODELS[kind]).spec)
    tree = batch_norm.without_history(tree_of(kind))
    source = released(kind, "huggingface")
    assert mismatches(source, tree, rules) == []
    table = expand(rules, tree)
    assert {key for key in table if table[key].target} | {huggingface_names.BATCHES} >= (
        source.keys()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_both_files_hold_the_same_numbers(kind):
    sizes = [
        sum(
            math.prod(x.shape)
            for name, x in released(kind, fmt).items()
            if not name.endswith(("average", "hidden", "counter", "tracked"))
            and "running" not in name
        )
        for fmt in ("deepmind", "huggingface")
    ]
    assert sizes[0] == sizes[1] > 19e6


def test_names_of_another_model_are_refused(tree_of):
    source = released("imagenet-fourier", "huggingface")
    spec = perceiver.build(MODELS["imagenet-learned"]).spec
    rules = huggingface_names.rules(spec)
    found = "\n".join(mismatches(source, tree_of("imagenet-learned"), rules))
    assert "target inputs/project/w: nothing fills it; missing perceiver.input_pre" in found
    assert "query.weight: shape (261, 1024), the model needs (512, 1024)" in found


@pytest.mark.parametrize("spec", ["perceiver-imagenet", "perceiver-imagenet-1"])
@pytest.mark.parametrize("rules", [deepmind.rules, huggingface_names.rules])
def test_models_of_the_first_paper_have_no_counterpart(spec, rules):
    with pytest.raises(ValueError, match="Perceiver IO models: one cross-attend, and queries as"):
        rules(perceiver.build(MODELS[spec]).spec)


@pytest.mark.parametrize("rules", [deepmind.rules, huggingface_names.rules])
def test_kinds_that_were_never_released_have_no_counterpart(rules):
    with pytest.raises(ValueError, match=r"Perceiver IO models.* not clip_classifier"):
        rules(perceiver.build(MODELS["audioset-raw"]).spec)
