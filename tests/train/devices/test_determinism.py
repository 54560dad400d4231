import subprocess
import sys

import jax
import ml_collections
import pytest

from train.devices import determinism

ON = ml_collections.ConfigDict({"deterministic": True})
OFF = ml_collections.ConfigDict({"deterministic": False})

# Sets it before and after the devices are there, and trains nothing.
CHILD = """
import os, ml_collections
from train.devices import determinism
config = ml_collections.ConfigDict({"deterministic": True})
determinism.apply(config)
determinism.apply(config)
import jax, jax.numpy as jnp
print(int(jnp.arange(3).sum()), os.environ["XLA_FLAGS"])
determinism.apply(config)  # set already: no reason to complain
os.environ["XLA_FLAGS"] = ""
try:
    determinism.apply(config)
except RuntimeError as error:
    print(error)
"""


def test_it_is_set_once_beside_other_flags_and_xla_takes_it(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=120, check=True
    )
    numbers, error = done.stdout.splitlines()
    assert numbers == (
        "3 --xla_force_host_platform_device_count=2 --xla_gpu_deterministic_ops=true"
    )
    assert "too late" in error
    assert "XLA_FLAGS=--xla_gpu_deterministic_ops=true" in error


def test_nothing_is_touched_unless_asked_for(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--x=1")
    assert not determinism.apply(OFF)
    assert determinism.os.environ["XLA_FLAGS"] == "--x=1"


def test_too_late_is_refused(monkeypatch):
    assert jax.device_count() > 0
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    with pytest.raises(RuntimeError, match="too late"):
        determinism.apply(ON)


@pytest.mark.parametrize("value", ["false", "False", "0"])
def test_a_contradiction_is_refused(monkeypatch, value):
    monkeypatch.setenv("XLA_FLAGS", f"--x=1 --xla_gpu_deterministic_ops={value}")
    with pytest.raises(ValueError, match="remove one of the two"):
        determinism.apply(ON)


@pytest.mark.parametrize("word", ["--xla_gpu_deterministic_ops", "--xla_gpu_deterministic_ops=1"])
def test_what_is_set_already_is_enough(monkeypatch, word):
    monkeypatch.setenv("XLA_FLAGS", word)
    assert determinism.apply(ON)
    assert determinism.os.environ["XLA_FLAGS"] == word
