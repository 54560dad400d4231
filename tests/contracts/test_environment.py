"""The rules of tests/conftest.py are in force: without them other tests would pass too easily."""

import os
import subprocess
import sys
import warnings

import hypothesis
import jax
import jax.numpy as jnp
import matplotlib
import pytest


def test_there_are_eight_devices():
    assert jax.device_count() == 8


def test_rank_promotion_raises():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones([2, 3]) + jnp.ones([3])


def test_a_warning_is_an_error():
    with pytest.raises(UserWarning, match="loud"):
        warnings.warn("loud", stacklevel=1)


def test_nothing_is_drawn_on_a_screen():
    assert matplotlib.get_backend().lower() == "agg"


def test_properties_see_the_same_examples_each_time(request):
    if request.config.getoption("--hypothesis-profile") is not None:
        pytest.skip("another profile was asked for")
    assert hypothesis.settings().derandomize


def test_child_processes_inherit_the_rules():
    program = "import jax; print(jax.device_count(), jax.config.jax_numpy_rank_promotion)"
    child = subprocess.run(
        [sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True
    )
    assert child.stdout.split() == ["8", "raise"]
