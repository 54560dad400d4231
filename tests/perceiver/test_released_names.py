"""The tables against the released models: every array of every file has one place, and back."""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

import perceiver
from perceiver.released import MODELS
from perceiver.weights import deepmind
from perceiver.weights.mapping import expand, misfits
from perceiver.weights.stored import Stored

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"

_spec = importlib.util.spec_from_file_location("make_names", GOLDEN / "make_names.py")
make_names = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_names)

NAMES = json.loads((GOLDEN / "names.json").read_text())
KINDS = [name for name in NAMES if name in MODELS]


def released(kind, fmt):
    """Names and shapes as their own code gives them; nothing can be read."""

    def stored(name, shape):
        integer = name.endswith(("counter", "num_batches_tracked"))
        return Stored(tuple(shape), np.dtype(np.int64 if integer else np.float32), None)

    names = make_names.expand(NAMES[kind][fmt])
    return {name: stored(name, shape) for name, shape in names.items()}


def tree_of(spec):
    params, state = jax.eval_shape(perceiver.build(spec).init, jax.random.key(0))
    return {**params, **state}


@pytest.mark.parametrize("kind", KINDS)
def test_a_released_file_of_deepmind_fills_the_model(kind):
    rules = deepmind.rules(perceiver.build(MODELS[kind]).spec)
    tree, source = tree_of(MODELS[kind]), released(kind, "deepmind")
    assert misfits(source, tree, rules) == []
    assert expand(rules, tree).keys() == source.keys()
