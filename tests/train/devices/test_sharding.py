import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from perceiver.model.processor import is_stacked
from train.devices import sharding
from train.devices.sharding import Rule


@pytest.mark.parametrize(
    ("path", "shape", "want"),
    [
        ("params/enter/w", (128, 512), P(None, "fsdp")),
        ("params/enter/w", (512, 128), P("fsdp")),
        ("params/enter/w", (128, 128), P("fsdp")),  # a tie: the first
        ("params/enter/w", (4099, 16), P(None, "fsdp")),  # the largest axis is prime
        ("params/enter/w", (67, 101), P()),  # nothing divides
        ("params/enter/b", (4088,), P()),  # too small to be worth a collective
        ("params/enter/b", (4096,), P("fsdp")),
        ("step", (), P()),
        # The first axis of stacked layers is never split, be it the largest or the only choice.
        ("params/net/layers/mix/w", (800, 16, 24), P(None, None, "fsdp")),
        ("params/net/layers/mix/w", (8, 67, 101), P()),
        ("opt_state/0/mu/net/layers/mix/b", (8, 512), P(None, "fsdp")),
        ("params/net/multilayers/mix/w", (800, 16), P("fsdp")),  # a word, not a part of one
        # Tables that tokens look up: by rows, or whole.
        ("params/embedding/table", (264, 768), P("fsdp")),
        ("opt_state/0/nu/embedding/table", (262, 768), P()),
    ],
)
def test_splits_the_largest_axis_that_divides(path, shape, want):
    assert sharding.split(path, shape, 8, "fsdp") == want


@pytest.mark.parametrize("path", ["params/a/layers/b/w", "layers/w", "ema/players/w", "a/w"])
def test_the_rule_of_stacked_layers_is_the_processors(path):
    matched = next(rule for rule in sharding.RULES if re.search(rule.pattern, path))
    assert (matched.cut == sharding.WIDEST_INNER) == is_stacked(path)


@pytest.mark.parametrize(
    ("shape", "want"), [((64, 800), P(None, "fsdp")), ((800, 67), P()), ((64, 64), P(None, "fsdp"))]
)
def test_the_first_rule_that_matches_holds(shape, want):
    rules = (Rule("/b$", sharding.WHOLE), Rule("^params/head/", 1), Rule("head", 0))
    assert sharding.split("params/head/w", shape, 8, "fsdp", rules) == want
    assert sharding.split("ema/head/w", (64, 800), 8, "fsdp", rules) == P("fsdp")
    assert sharding.split("params/head/b", (8000,), 8, "fsdp", rules) == P()
    assert sharding.split("params/other/w", (64, 800), 8, "fsdp", rules) == P()  # none matches


def test_one_part_is_the_whole():
    assert sharding.split("params/enter/w", (512, 128), 1, "fsdp") == P()


def test_table_lists_each_array_and_the_totals():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("fsdp",))
    spread = jax.sharding.NamedSharding(mesh, P(None, "fsdp"))
    whole = jax.sharding.NamedSharding(mesh, P())
    tree = {
        "enter": {"w": jax.ShapeDtypeStruct((3, 1000), np.float32, sharding=spread)},
        "step": jax.ShapeDtypeStruct((), np.int16, sharding=whole),
    }
    rows = sharding.sharding_table(tree)
    assert rows == [
        ("enter/w", (3, 1000), P(None, "fsdp"), 12000, 6000),
        ("step", (), P(), 2, 2),
    ]
    lines = sharding.format_table(rows).splitlines()
    assert lines[1].split() == ["enter/w", "(3,", "1000)", "fsdp", "on", "axis", "1", "6,000"]
    assert lines[2].split() == ["step", "()", "replicated", "2"]
    assert lines[3] == "2 arrays, 12,002 bytes in all, 6,002 on each device"
    assert sharding.format_table([]).endswith("0 arrays, 0 bytes in all, 0 on each device")
