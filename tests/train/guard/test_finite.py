"""Steps whose numbers are not finite change nothing, in every placement, whatever made the NaN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train import step as step_lib
from train.devices import placement as placement_lib
from train.guard import finite
from train.objective import metrics

BATCH = 16


def exploding(at_count):
    """An optimiser that makes a NaN out of finite gradients in one step."""

    def update(updates, count, params=None):
        factor = jnp.where(count == at_count, jnp.nan, 1.0)
        return jax.tree.map(lambda x: x * factor, updates), count + 1

    breaks = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
    return optax.chain(optax.adam(1e-2), breaks)


def make(task, optimizer, **options):
    options = {"seed": 0, "ema_decay": 0.9} | options
    return functools.partial(step_lib.make_train_step, task, optimizer, **options)


def start(placement, task, optimizer, batch):
    return placement.init(lambda: step_lib.init_state(task, optimizer, 0, batch, 0.9))


def kept(state):
    """What a skipped step may not touch, on the host: the next step consumes the state."""
    arrays = (state.params, state.net_state, state.opt_state, state.ema)
    return jax.tree.map(np.array, arrays)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("single", "loss"),
        ("single", "gradient"),
        ("single", "update"),
        ("pmap", "loss"),
        ("sharded", "update"),
    ],
)
def test_a_step_that_is_not_finite_changes_nothing(
    toy_task, toy_batch, assert_trees_close, name, cause
):
    placement, task = placement_lib.make(name), toy_task()
    optimizer = exploding(2) if cause == "update" else optax.adam(1e-2)
    state = start(placement, task, optimizer, toy_batch(BATCH))
    train = placement.compile_train(make(task, optimizer, skip_non_finite=True))
    for index in range(2):
        state, sums = train(state, placement.put(toy_batch(BATCH, index)))
        fetched = placement.fetch(sums)
        assert fetched["skipped"] == (0, 1)
        assert fetched["skipped_by"] == (0, 1)
    before = kept(state)
    bad = toy_batch(BATCH, 2)
    if cause == "loss":  # one number of one example, on one of the devices
        bad["x"][5, 3] = np.nan
    if cause == "gradient":  # the loss is finite in float32, the gradient's square is not
        bad["y"][:] = 1e19
        bad["mask"][:] = False
        bad["mask"][5, 3] = True
    state, sums = train(state, placement.put(bad))
    assert state.step == 3
    assert_trees_close(kept(state), before)
    fetched = placement.fetch(sums)
    assert fetched.pop("skipped") == (1, 1)
    assert finite.causes(fetched.pop("skipped_by")[0]).startswith(cause)
    assert set(fetched) == {"loss", "rows", "grad_norm"}
    assert set(fetched.values()) == {(0, 0)}
    if cause != "update":  # whose count stays at the step that breaks
        state, sums = train(state, placement.put(toy_batch(BATCH, 3)))
        assert placement.fetch(sums)["skipped"] == (0, 1)
        assert state.step == 4
        assert (np.asarray(state.params["enter"]["w"]) != before[0]["enter"]["w"]).any()


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_while_all_is_finite_skipping_changes_no_step(
    toy_task, toy_batch, assert_trees_close, micro_batches
):
    task, optimizer, batch = toy_task(noise_rate=0.3), optax.adam(1e-2), toy_batch(BATCH)
    placement = placement_lib.make("single")
    after = []
    for skip in (False, True):
        make_step = make(task, optimizer, micro_batches=micro_batches, skip_non_finite=skip)
        train = placement.compile_train(make_step)
        state = start(placement, task, optimizer, batch)
        for _ in range(3):
            state, sums = train(state, placement.put(batch))
        after.append((state, {k: x for k, x in sums.items() if not k.startswith("skipped")}))
    assert_trees_close(after[1], after[0], rtol=1e-6, atol=1e-7)


def test_without_skipping_the_program_is_as_it_was(toy_task, toy_batch):
    task, batch = toy_task(), toy_batch(BATCH)
    state = step_lib.init_state(task, optax.adam(1e-2), 0, batch, 0.9)
    plain = make(task, optax.adam(1e-2))()
    assert "is_finite" not in jax.jit(plain).lower(state, batch).as_text()
    skipping = make(task, optax.adam(1e-2), skip_non_finite=True)()
    assert "is_finite" in jax.jit(skipping).lower(state, batch).as_text()


def test_skipped_steps_add_up_to_the_metrics_of_the_others():
    fine = {"loss": (6.0, 2.0), "skipped": (0.0, 1.0)}
    skipped = {"loss": (0.0, 0.0), "skipped": (1.0, 1.0)}
    total = metrics.add(metrics.add(fine, skipped), skipped)
    assert metrics.means(total) == {"loss": 3.0, "skipped": pytest.approx(2 / 3)}


@pytest.mark.parametrize("name", placement_lib.NAMES)
def test_broken_arrays_are_found_before_a_save(toy_task, toy_batch, name):
    """The sums of the step that broke them are all finite."""
    placement, task, optimizer = placement_lib.make(name), toy_task(), exploding(1)
    state = start(placement, task, optimizer, toy_batch(BATCH))
    train = placement.compile_train(make(task, optimizer))
    state, _ = train(state, placement.put(toy_batch(BATCH)))
    assert finite.broken_arrays(placement.canonical(state), placement.mesh) == []
    state, sums = train(state, placement.put(toy_batch(BATCH)))
    assert step_lib.is_finite(placement.fetch(sums))
    broken = finite.broken_arrays(placement.canonical(state), placement.mesh)
    assert {"params/enter/w", "ema/enter/w"} <= set(broken)
    assert not any(path.startswith("net_state") for path in broken)


def test_trees_without_floating_point_numbers_are_finite():
    mesh = placement_lib.make("single").mesh
    tree = {"count": jnp.arange(3), "none": jnp.zeros((0, 2))}
    assert finite.all_finite(tree)
    assert finite.broken_arrays(tree, mesh) == []
    assert finite.broken_arrays({"count": jnp.arange(3)}, mesh) == []
    assert finite.broken_arrays({"x": jnp.array([1, jnp.inf]), "y": jnp.ones(2)}, mesh) == ["x"]


def test_causes_name_the_first_thing_that_broke():
    assert [finite.causes(code) for code in (1, 2, 3, 4, 6, 7)] == [
        "loss",
        "gradient",
        "loss and gradient",
        "update",
        "gradient",
        "loss and gradient",
    ]
