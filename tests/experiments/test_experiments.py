"""What experiments compute beside their runs."""

import numpy as np
import pytest

from data.clips import scene_plans
from experiments import common, comparison, deepnet, fusion, performer
from perceiver.nn.residual import residual_connection


def test_the_exponent_of_memory_leaves_out_what_does_not_grow():
    for power in (0.5, 1.0):
        sizes = {n: 7000 + 300 * n**power for n in (4, 16, 64, 256)}
        np.testing.assert_allclose(deepnet.exponent(sizes), power, atol=1e-3)


def test_the_bound_is_that_of_theorem_4_2():
    # 3 layers of 2 branches; in each both matrices move by 0.1 in 2 x 2 elements
    layers, moved = 3, 0.1
    stack = {
        f"processor/layers/self_attend/{branch}/{name}": {
            "w": np.zeros((layers, 2, 2)),
            "b": np.zeros((layers, 2)),
        }
        for branch, names in {
            "attend/attention": ("query", "key", "value", "out"),
            "feed_forward/mlp": ("hidden", "out"),
        }.items()
        for name in names
    }
    after = {path: {k: x + moved for k, x in leaves.items()} for path, leaves in stack.items()}
    way = moved * np.sqrt(2 * 4)  # of a branch: queries, keys and biases do not count
    for residual, gain, alpha in (
        ("post_norm", 1.0, 1.0),
        ("deepnorm", (8 * layers) ** -0.25, (2 * layers) ** 0.25),
    ):
        expected = 2 * layers * np.sqrt(2) * gain / alpha * way
        found = deepnet.bound(stack, after, residual_connection(residual, layers))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_trials_differ_in_nothing_but_what_they_compare():
    for model in ("transformer", "perceiver"):
        configs = [deepnet.config_of(*t).to_dict() for t in deepnet.TRIALS if t[0] == model]
        for config in configs:
            config["model"].pop("residual")
            config["optim"].pop("lr")
            for section in ("train", "optim"):
                config[section].pop("steps")
        assert all(config == configs[0] for config in configs)


def test_columns_are_means_of_the_groups_without_what_is_not_counted():
    names = scene_plans.CLASSES[::-1]
    values = np.arange(len(names)) / 100
    found = fusion.columns(values, names)
    assert found["all"] == pytest.approx(100 * values.mean())
    assert found["both"] == pytest.approx(1.0)  # the last three, which come first here
    values[0] = np.nan
    assert fusion.columns(values, names)["both"] == pytest.approx(1.5)


def test_widths_meet_a_number_of_parameters():
    spec = comparison.spec_of(comparison.image, comparison.CONVOLUTION, 8, 20_000)
    assert common.parameters(spec) == pytest.approx(20_000, rel=0.15)


def test_what_was_measured_is_not_measured_again(tmp_path):
    calls = []
    for _ in range(2):  # as two calls of the command
        results = comparison.Results(tmp_path)
        key = {"part": "little", "system": "Perceiver", "x": 40, "seed": 0}
        results.measure(lambda: calls.append(1) or {"score": 50.0}, **key)
    assert len(calls) == 1
    assert results.rows == [key | {"score": 50.0}]


def test_a_slope_is_of_the_larger_half():
    points = [(1, 7.0), (4, 7.0), (16, 28.0), (64, 112.0)]
    assert performer.slope(points) == pytest.approx(1)
