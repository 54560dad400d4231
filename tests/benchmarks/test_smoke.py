"""Every benchmark and every experiment runs at tiny size, from its command line."""

import os
import subprocess
import sys

import pytest

from benchmarks import measure

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
COMMANDS = [
    "benchmarks.attention",
    "benchmarks.models --parts forward",
    "benchmarks.models --parts gradient",
    "benchmarks.training_step --parts imagenet-fourier",
    "benchmarks.training_step --parts masked-lm-bytes",
    "benchmarks.scaling inputs",
    "benchmarks.scaling collectives",
    pytest.param("benchmarks.input_pipelines --parts images", marks=linux),
    pytest.param("benchmarks.input_pipelines --parts clips", marks=linux),
    pytest.param("benchmarks.input_pipelines --parts text", marks=linux),
    "benchmarks.checkpoint --parts blocks",
    "benchmarks.checkpoint --parts memory",
    "benchmarks.compile --parts step",
    "benchmarks.compile --parts first-answer",
    "benchmarks.compile --parts loop",
    "experiments.comparison --parts little",
    "experiments.comparison --parts time",
    "experiments.comparison --parts lengths",
    "experiments.deepnet --parts training",
    "experiments.deepnet --parts update",
    "experiments.deepnet --parts memory",
    "experiments.fine_tuning",
    "experiments.fusion",
    "experiments.most_similar",
    "experiments.performer --parts error",
    "experiments.performer --parts scaling",
    "experiments.performer --parts swap",
    "experiments.permuted_digits",
    "experiments.sentences",
]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_smoke(command, tmp_path):
    words = [sys.executable, "-m", *command.split(), "--smoke"]
    if command.startswith("experiments"):
        words += ["--folder", str(tmp_path / "runs")]
    if command == "benchmarks.scaling inputs":
        words += ["--png", str(tmp_path / "scaling.png")]
    # As for users, where the machine has one device.
    environment = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        words, cwd=measure.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"Machine: {measure.cpu_model()}" in done.stdout
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(table) >= 3  # heads, a rule, a row
    for path in tmp_path.rglob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
