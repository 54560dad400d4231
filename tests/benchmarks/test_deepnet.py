"""The benchmark of DeepNet's claims: its arithmetic, and that it runs."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import measure
from benchmarks.deepnet import memory, training, update
from perceiver.nn.residual import join
from train.run.window import NonFiniteError


def test_the_exponent_of_memory_leaves_out_what_does_not_grow():
    depths = (4, 16, 64, 256)

    def rows(power):
        return [
            memory.Memory(
                remat="sqrt", layers=n, temporary=7000 + round(300 * n**power), parameters=0
            )
            for n in depths
        ]

    np.testing.assert_allclose(memory.exponent(rows(0.5)), 0.5, atol=1e-3)
    np.testing.assert_allclose(memory.exponent(rows(1.0)), 1.0, atol=1e-3)


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
        found = update.bound(stack, after, join(residual, layers))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_run_that_diverges_is_a_row_with_the_reason(tmp_path, monkeypatch):
    trial = training.TRIALS[1]

    def diverges(config, folder):
        assert config.model.residual == trial.residual
        assert (config.optim.lr, config.train.steps) == (trial.rate, trial.steps)
        folder.mkdir()
        row = {"step": 10, "bits": 7.5, "loss": 5.2}
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        raise NonFiniteError("step 13: loss nan")

    monkeypatch.setattr(training.loop, "run", diverges)
    row = training.train(trial, tmp_path)
    assert row["diverged"] == "step 13: loss nan"
    assert (row["curve"], row["held_out"], row["unigram"]) == ([[10, 7.5]], [], None)


def test_trials_differ_in_nothing_but_what_they_compare():
    for model in ("transformer", "perceiver"):
        configs = [
            training.config_of(trial).to_dict() for trial in training.TRIALS if trial.model == model
        ]
        for config in configs:
            config["model"].pop("residual")
            config["optim"].pop("lr")
            for section in ("train", "optim"):
                config[section].pop("steps")
        assert all(config == configs[0] for config in configs)


@pytest.mark.slow
def test_smoke(tmp_path):
    path = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.deepnet", "--smoke", "--json", str(path)]
    command += ["--folder", str(tmp_path / "runs")]
    done = subprocess.run(command, cwd=measure.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert {"training", "update", "memory"} <= found.keys()
    (run,) = found["training"]
    assert run["diverged"] == ""
    assert [step for step, _ in run["curve"]] == [1, 2]
    for row in found["update"]:
        assert 0 < row["descent"]["weights"] < 30 * row["descent_bound"]
    assert f"| {run['model']} | {run['layers']} | {run['residual']} |" in done.stdout
    assert (tmp_path / "runs" / "deepnet.png").stat().st_size > 1000
