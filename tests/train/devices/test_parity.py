"""Real Perceivers take the same LAMB steps on one device, under pmap and with sharded state."""

import functools

import jax
import numpy as np
import pytest

from configs import digits, masked_lm
from perceiver.weights.mapping import flatten
from train import experiment
from train.devices import sharding

STEPS = 5
MESHES = {"masked bytes": (2, 2, 2)}  # data, fsdp, sequence; of others all devices are "fsdp"
# Relative to the largest entry of each array: the placements add up gradients in another order,
# and LAMB's division by the root of tiny second moments magnifies that.
TOLERANCE = 2e-4

# config, variant, path of the cross-attend (small inputs would all be "plain")
CONFIGS = {
    "images": (digits.get_config, "fourier,smoke", "separable"),
    "learned positions": (digits.get_config, "learned,smoke", "shared"),
    "masked bytes": (masked_lm.get_config, "smoke", "streaming"),
}


@functools.cache
def trained(name, placement, path=None):
    """Parameters and losses after a few steps; also the run's experiment and last state."""
    make_config, variant, usual_path = CONFIGS[name]
    config = make_config(variant)
    config.placement = placement
    if placement == "sharded" and name in MESHES:
        config.mesh.update(dict(zip(("data", "fsdp", "sequence"), MESHES[name], strict=True)))
    config.model.cross_path = path or usual_path
    config.model.latent_channels = 64  # arrays large enough to be split
    config.optim.update(name="lamb", lr=1e-2, weight_decay=0.1, clip_norm=1.0, eps=1e-4)
    config.train.steps = STEPS
    run = experiment.make(config)
    state, step = run.placement.init(run.init_state), run.train_step()
    batches, losses = run.batches("train", train=True), []
    for _ in range(STEPS):
        state, sums = step(state, run.placement.put(next(batches)))
        total, weight = run.placement.fetch(sums)["loss"]
        losses.append(total / weight)
    batches.close()
    return run, state, flatten(jax.device_get(state.params)), losses


def assert_same_steps(params, expected):
    for key, x in expected.items():
        if key.endswith("attention/key/b"):
            continue  # its true gradient is zero, and LAMB makes steps of the rounding noise
        error = np.abs(params[key] - x).max() / np.abs(x).max()
        assert error < TOLERANCE, f"{key}: {error:.1e}"


@pytest.mark.parametrize("name", [pytest.param("images", marks=pytest.mark.slow), "masked bytes"])
def test_the_path_of_a_cross_attend_changes_no_step(name):
    _, _, expected, losses = trained(name, "single")
    _, _, params, ours = trained(name, "single", path="plain")
    np.testing.assert_allclose(ours, losses, rtol=1e-4)
    assert_same_steps(params, expected)


@pytest.mark.slow  # by day test_placement.py has a toy model, and test_multihost.py the digits
@pytest.mark.parametrize("placement", ["pmap", "sharded"])
@pytest.mark.parametrize("name", ["images", "masked bytes", "learned positions"])
def test_eight_devices_take_the_steps_of_one(name, placement):
    _, _, expected, losses = trained(name, "single")
    run, state, params, ours = trained(name, placement)
    assert run.placement.devices == 8
    np.testing.assert_allclose(ours, losses, rtol=1e-4)
    assert_same_steps(params, expected)
    if placement == "sharded":
        rows = {row.path: row for row in sharding.sharding_table(state)}
        split = [row for row in rows.values() if row.bytes_per_device < row.bytes_total]
        assert split, "nothing is split"
        parts = MESHES[name][1] if name in MESHES else 8
        assert all(row.bytes_per_device * parts == row.bytes_total for row in split)
