import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from train import sharding


@pytest.mark.parametrize(
    ("path", "shape", "want"),
    [
        ("params/enter/w", (128, 512), P(None, "data")),
        ("params/enter/w", (512, 128), P("data")),
        ("params/enter/w", (128, 128), P("data")),  # a tie: the first
        ("params/enter/w", (4099, 16), P(None, "data")),  # the largest axis is prime
        ("params/enter/w", (67, 101), P()),  # nothing divides
        ("params/enter/b", (4088,), P()),  # too small to be worth a collective
        ("params/enter/b", (4096,), P("data")),
        ("step", (), P()),
        # The first axis of stacked layers is never split, be it the largest or the only choice.
        ("params/net/layers/mix/w", (800, 16, 24), P(None, None, "data")),
        ("params/net/layers/mix/w", (8, 67, 101), P()),
        ("opt_state/0/mu/net/layers/mix/b", (8, 512), P(None, "data")),
        ("params/net/multilayers/mix/w", (800, 16), P("data")),  # a word, not a part of one
    ],
)
def test_splits_the_largest_axis_that_divides(path, shape, want):
    assert sharding.split(path, shape, 8, "data") == want


def test_table_lists_each_array_and_the_totals():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    spread = jax.sharding.NamedSharding(mesh, P(None, "data"))
    whole = jax.sharding.NamedSharding(mesh, P())
    tree = {
        "enter": {"w": jax.ShapeDtypeStruct((3, 1000), np.float32, sharding=spread)},
        "step": jax.ShapeDtypeStruct((), np.int16, sharding=whole),
    }
    rows = sharding.sharding_table(tree)
    assert rows == [
        ("enter/w", (3, 1000), P(None, "data"), 12000, 6000),
        ("step", (), P(), 2, 2),
    ]
    lines = sharding.format_table(rows).splitlines()
    assert lines[1].split() == ["enter/w", "(3,", "1000)", "axis", "1", "6,000"]
    assert lines[2].split() == ["step", "()", "replicated", "2"]
    assert lines[3] == "2 arrays, 12,002 bytes in all, 6,002 on each device"
    assert sharding.format_table([]).endswith("0 arrays, 0 bytes in all, 0 on each device")
