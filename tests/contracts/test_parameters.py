"""A parameter's path is public API: exported models and the import of weights depend on it."""

import difflib
import importlib.util
import json
import pathlib
import re

import pytest

from perceiver.kinds.released import MODELS
from perceiver.model.processor import REMAT

pytestmark = pytest.mark.core

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"

_spec = importlib.util.spec_from_file_location("make_parameters", GOLDEN / "make_parameters.py")
make_parameters = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_parameters)

# Haiku's way of naming what nobody named: a method's scope, or a module's class with a number
AUTOMATIC = re.compile(
    r"~|(?:linear|layer_norm|mlp|residual|attention|multi_head_attention|self_attend"
    r"|cross_attend|learned_table|layers|decoder|batch_norm)_\d+$"
)
LEAVES = {"w", "b", "scale", "offset", "table"}


def is_convolution(path, spec):
    """Whether a module's own weights are a convolution's, [h, w, C, D]."""
    of_patches = path == "inputs/project" and spec["kind"] == "image_transformer"
    return path == "inputs/stem" or path.startswith("resnet/") or of_patches


@pytest.mark.parametrize("name", MODELS)
def test_tree_is_the_golden_one(name, shapes_of):
    path = GOLDEN / "parameters" / f"{name}.json"
    golden = path.read_text() if path.exists() else ""
    actual = make_parameters.render(make_parameters.signature(shapes_of(MODELS[name])[0]))
    if actual != golden:
        difference = difflib.unified_diff(
            golden.splitlines(), actual.splitlines(), "golden", "actual", n=0, lineterm=""
        )
        pytest.fail(
            f"the parameters of {name} changed, so older exports no longer load. If that is meant:"
            "\n  python tests/golden/make_parameters.py\n" + "\n".join(difference)
        )


def test_there_is_no_golden_of_a_model_that_is_gone():
    assert {path.stem for path in (GOLDEN / "parameters").glob("*.json")} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_paths_are_made_of_words(name):
    golden = json.loads((GOLDEN / "parameters" / f"{name}.json").read_text())
    assert len(golden) > 17
    for path, text in golden.items():
        *modules, leaf = path.split("/")
        assert leaf in LEAVES, path
        assert not any(AUTOMATIC.search(module) for module in modules), path
        assert text.startswith("f32["), f"{path} is {text}"


@pytest.mark.parametrize("name", MODELS)
def test_stacks_and_only_stacks_have_a_layer_axis(name):
    golden = json.loads((GOLDEN / "parameters" / f"{name}.json").read_text())
    layers = MODELS[name].get("layers")
    ranks = {"w": 2, "b": 1, "scale": 1, "offset": 1, "table": 2}
    for path, text in golden.items():
        shape = [int(n) for n in text[4:-1].split(",")]
        module, leaf = path.rsplit("/", 1)
        own = ranks[leaf] + 2 * (leaf == "w" and is_convolution(module, MODELS[name]))
        own += 3 * module.endswith("/batch_norm")  # Haiku's keeps [1, 1, 1, C]
        stacked = "layers" in path.split("/")
        assert len(shape) == own + stacked, path
        assert not stacked or shape[0] == layers, path


NAMES = ["imagenet-conv", "masked-lm-bytes", "perceiver-imagenet-2", "video-autoencoder"]


@pytest.mark.parametrize(
    "choice",
    [
        *({"remat": remat} for remat in REMAT[1:]),
        {"dtype": "bfloat16"},
        {"decode_path": "streaming"},
        {"blocks": 3},
        {"dropout_rate": 0.1, "attention_dropout_rate": 0.1},
        # cudnn refuses to be traced where there is no GPU
        *({"kernel": kernel} for kernel in ("reference", "recompute", "favor_relu")),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_choices_of_computation_leave_the_tree_alone(name, choice):
    golden = json.loads((GOLDEN / "parameters" / f"{name}.json").read_text())
    assert make_parameters.parameters({**MODELS[name], **choice}) == golden


def test_module_state_is_of_batch_norm_only(shapes_of):
    for name, spec in MODELS.items():
        _, state = shapes_of(spec)
        assert all("/batch_norm/" in path for path in state), name
        convolutional = spec.get("stem") == "conv" or spec["kind"] == "image_resnet"
        assert bool(state) == convolutional, name
