"""Options that change how a step is computed change no step, on any placement.

Operands, rematerialisation, micro-batches, averaged parameters: each placement meets both values of
each option, and with the cases of the night every pair of options all four pairs of values. Each is
compared with one device that has only the operands in common with it. So neither a placement, nor
memory saved, nor the order of sums may show.
"""

import functools

import jax
import numpy as np
import optax
import pytest

from configs import digits
from perceiver.weights.mapping import flatten
from train import experiment, step

STEPS = 3  # the head starts at zero, so that the first moves nothing else
MESHES = {  # data, fsdp, sequence
    "single": None,
    "pmap": None,
    "data-fsdp-sequence": (2, 2, 2),
    "fsdp": (1, 8, 1),
    "data-fsdp": (2, 4, 1),
    "data-sequence": (2, 1, 4),
}
# The largest error of an array, relative to its largest entry. Sums of float32 in another order
# differ by some 1e-6; one that ends up on the other side of a rounding to bfloat16 by up to 4e-3.
TOLERANCE = {"float32": 2e-5, "bfloat16": 1e-2}
# operands, remat, micro-batches, EMA: 0 is off. Each placement has a row and its opposite.
BY_DAY = {
    "pmap": (0, 1, 0, 1),
    "data-fsdp-sequence": (0, 1, 1, 0),
}
BY_NIGHT = {
    "single": (0, 0, 1, 1),
    "fsdp": (0, 1, 1, 0),
    "data-fsdp": (0, 0, 0, 1),
    "data-sequence": (0, 0, 0, 0),
}


def cases(rows):
    return [
        pytest.param(name, found, id=f"{name}-{''.join(map(str, found))}")
        for name, row in rows.items()
        for found in (row, tuple(1 - x for x in row))
    ]


# Most of a step's first run is compiling, which need not be thorough here.
FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@functools.cache
def trained(name, bfloat16, remat, micro_batches, ema):
    """Returns losses, parameters, and averaged parameters (or None) after a few steps."""
    c = digits.get_config("perceiver,smoke")
    c.placement = "sharded" if MESHES[name] else name
    if MESHES[name]:
        c.mesh.update(dict(zip(("data", "fsdp", "sequence"), MESHES[name], strict=True)))
    c.model.update(layers=1, blocks=1, latent_channels=64, encoders=(0,), processors=(0,))
    c.model.update(cross_path="separable", operands="bfloat16" if bfloat16 else "float32")
    c.model.remat = "layer" if remat else "none"
    c.data.batch_size = 16
    run, optimizer = experiment.make(c), optax.sgd(0.3, momentum=0.9)
    make_step = functools.partial(
        step.make_train_step,
        run.task,
        optimizer,
        seed=0,
        micro_batches=2 if micro_batches else 1,
        ema_decay=0.5 if ema else 0.0,
    )
    inputs = run.task.model.example_inputs(1)
    state = run.placement.init(
        lambda: step.init_state(run.task, optimizer, 0, inputs, 0.5 if ema else 0.0)
    )
    compiled, losses = None, []
    batches = run.batches("train", train=True)
    for _ in range(STEPS):
        batch = run.placement.put(next(batches))
        if compiled is None:
            lowered = run.placement.compile_train(make_step).lower(state, batch)
            compiled = lowered.compile(FAST_COMPILE)
        state, sums = compiled(state, batch)
        total, weight = run.placement.fetch(sums)["loss"]
        losses.append(total / weight)
    batches.close()
    found = jax.device_get((state.params, state.ema))
    return losses, *(None if tree is None else flatten(tree) for tree in found)


def largest_error(found, expected):
    assert found.keys() == expected.keys()
    errors = [
        np.abs(found[key] - x).max() / np.abs(x).max()
        for key, x in expected.items()
        if not key.endswith("attention/key/b")  # no gradient but rounding noise
    ]
    return max(errors)


def check(name, row):
    bfloat16, _, _, ema = row
    losses, params, average = trained(name, *row)
    want, expected, expected_average = trained("single", bfloat16, 0, 0, 1)
    tolerance = TOLERANCE["bfloat16" if bfloat16 else "float32"]
    np.testing.assert_allclose(losses, want, rtol=tolerance)
    assert largest_error(params, expected) < tolerance
    assert (average is not None) == ema
    if ema:
        assert largest_error(average, expected_average) < tolerance


@pytest.mark.parametrize(("name", "row"), cases(BY_DAY))
def test_options_change_no_step(name, row):
    check(name, row)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), cases(BY_NIGHT))
def test_options_change_no_step_on_other_meshes(name, row):
    check(name, row)


def test_bfloat16_operands_are_really_rounded():
    _, exact, _ = trained("single", 0, 0, 0, 1)
    _, rounded, _ = trained("single", 1, 0, 0, 1)
    assert largest_error(rounded, exact) > 100 * TOLERANCE["float32"]
