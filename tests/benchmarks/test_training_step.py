"""Training steps of processes that take turns, ours beside Hugging Face's where it is installed."""

import importlib.util
import json
import sys

import pytest

from benchmarks import training_step, turns
from perceiver.kinds import specs

pytestmark = pytest.mark.slow  # each process starts JAX or PyTorch

needs_peer = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs the extra `parity`"
)


TEXT = {"kind": "masked_lm", "max_length": 17, "latents": 5, "latent_channels": 8, "layers": 2}
HEADS = {"cross_qk_channels": 8, "cross_v_channels": 8, "embedding_channels": 8, "self_heads": 2}


@pytest.fixture
def task():
    spec = specs.parse(TEXT | HEADS | {"query_qk_channels": 8}).to_dict()
    return {"name": "tiny", "spec": spec, "optim": training_step.OPTIM, "batch": 1}


def test_a_worker_takes_a_step_for_each_line(task):
    words = ["--serve", json.dumps(task)]
    with turns.Worker(sys.executable, "benchmarks.training_step", words) as worker:
        assert worker.facts["parameters"] > 1000
        compiling, step = worker.step(), worker.step()
        assert worker.process.poll() is None
    assert worker.process.returncode == 0
    assert compiling["wall_s"] > step["wall_s"] > 0
    assert step["cpu_s"] > 0
    assert step["resident_mib"] >= compiling["resident_mib"] > 100


def test_a_worker_that_fails_is_noticed(task):
    task["spec"]["latents"] = 0
    with pytest.raises(RuntimeError, match=r"benchmarks.training_step ended early with code 1"):
        turns.Worker(sys.executable, "benchmarks.training_step", ["--serve", json.dumps(task)])


@needs_peer
@pytest.mark.parametrize("name", training_step.NAMES)
def test_both_sides_are_the_same_model(name, monkeypatch, capsys, tmp_path):
    path = tmp_path / "rows.json"
    words = [name, "--smoke", "--rounds", "1", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["training_step", *words])
    training_step.main()  # raises where the numbers of parameters differ
    peer, ours = json.loads(path.read_text())["rows"]
    assert (peer["form"], ours["form"]) == ("Hugging Face", "ours, remat dots")
    assert ours["cpu_ratio"] > 0
    assert peer["resident_mib"] > 50
    assert "the figures mean nothing" in capsys.readouterr().out
