import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train import step as step_lib

# Float32 sums over a batch, added up in another order.
RTOL, ATOL = 1e-5, 1e-6


@pytest.fixture
def descend():
    """Plain gradient descent with rate one: the update is minus the gradient."""
    return optax.sgd(1.0)


def test_update_is_the_gradient_of_the_ratio(toy_task, toy_batch, descend, assert_trees_close):
    task, batch = toy_task(), toy_batch(11)
    state = _start(task, descend, 0, batch)

    def ratio(params):
        sums, _ = task.loss(params, state.net_state, None, batch, is_training=True)
        return sums["loss"][0] / sums["loss"][1]

    value, grads = jax.jit(jax.value_and_grad(ratio))(state.params)
    after, sums = jax.jit(step_lib.make_train_step(task, descend, seed=0))(state, batch)

    assert_trees_close(
        jax.tree.map(jnp.subtract, state.params, after.params), grads, rtol=1e-4, atol=ATOL
    )
    np.testing.assert_allclose(sums["loss"][0] / sums["loss"][1], value, RTOL)
    np.testing.assert_allclose(sums["grad_norm"][0], optax.tree.norm(grads), RTOL)
    assert sums["grad_norm"][1] == 1.0
    assert after.step == 1


@pytest.mark.parametrize("micro_batches", [3, 13])
def test_micro_batches_give_the_update_of_the_whole_batch(
    toy_task, toy_batch, assert_trees_close, micro_batches
):
    task, optimizer, batch = toy_task(), optax.adamw(1e-2), toy_batch(78)
    state = _start(task, optimizer, 0, batch)
    make = functools.partial(step_lib.make_train_step, task, optimizer, seed=0)

    whole, whole_sums = jax.jit(make())(state, batch)
    pieces, pieces_sums = jax.jit(make(micro_batches=micro_batches))(state, batch)

    # Adam divides by the root of the squared gradient: rounding shows where the gradient is tiny.
    assert_trees_close(pieces.params, whole.params, rtol=1e-4, atol=1e-5)
    assert_trees_close(pieces_sums["loss"], whole_sums["loss"], rtol=RTOL)
    assert_trees_close(pieces_sums["grad_norm"], whole_sums["grad_norm"], rtol=RTOL)
    assert pieces.step == whole.step == 1


def test_each_micro_batch_sees_the_net_state_of_the_one_before(toy_task, toy_batch, descend):
    task, batch = toy_task(), toy_batch(6)
    state = _start(task, descend, 0, batch)
    step = jax.jit(step_lib.make_train_step(task, descend, seed=0, micro_batches=3))
    after, _ = step(state, batch)
    assert after.net_state["~"]["passes"] == 3
    average = np.zeros(batch["x"].shape[1])
    for first in range(3):  # piece i holds rows i, i + 3, ...
        average = 0.9 * average + 0.1 * batch["x"][first::3].mean(axis=0)
    np.testing.assert_allclose(after.net_state["~"]["average"], average, RTOL, ATOL)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_batch_without_weight_changes_nothing(
    toy_task, toy_batch, descend, assert_trees_close, micro_batches
):
    task, batch = toy_task(), toy_batch(4)
    batch["mask"][:] = False
    state = _start(task, descend, 0, batch)
    step = step_lib.make_train_step(task, descend, seed=0, micro_batches=micro_batches)
    after, sums = jax.jit(step)(state, batch)
    assert_trees_close(after.params, state.params)
    assert sums["loss"] == (0.0, 0.0)
    assert sums["grad_norm"][0] == 0.0
    assert after.step == 1


def test_keys_depend_on_seed_stream_and_step_alone():
    key = jax.random.key_data(step_lib.key_for(3, "train", 7))
    # 1550247075 is the CRC-32 of b"train": another number would change every run's randomness.
    want = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 1550247075), 7)
    np.testing.assert_array_equal(key, jax.random.key_data(want))
    for other in [(4, "train", 7), (3, "init", 7), (3, "train", 8)]:
        assert (jax.random.key_data(step_lib.key_for(*other)) != key).any()


def test_randomness_follows_the_step_not_the_process(
    toy_task, toy_batch, descend, assert_trees_close
):
    task, batch = toy_task(noise_rate=0.5), toy_batch(8)
    step = jax.jit(step_lib.make_train_step(task, descend, seed=5))
    states = [_start(task, descend, 5, batch)]
    for _ in range(4):
        states.append(step(states[-1], batch)[0])
    resumed = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), states[2])
    for _ in range(2):
        resumed, _ = step(resumed, batch)
    assert_trees_close(resumed, states[4])

    def loss_at(step_count):
        _, sums = step(dataclasses.replace(states[0], step=jnp.int32(step_count)), batch)
        return float(sums["loss"][0])

    assert len({loss_at(n) for n in range(3)}) == 3


def test_replicas_and_micro_batches_draw_their_own_noise(toy_task, toy_batch, descend):
    task, batch = toy_task(noise_rate=0.5), toy_batch(1)
    batch = {name: np.repeat(x, 2, axis=0) for name, x in batch.items()}  # two equal rows
    state = _start(task, descend, 0, batch)
    make = functools.partial(step_lib.make_train_step, task, descend, seed=0)
    losses = [
        float(jax.jit(make(replica=lambda r=r: r))(state, batch)[1]["loss"][0]) for r in range(2)
    ]
    assert losses[0] != losses[1]

    first = {name: x[:1] for name, x in batch.items()}
    alone = float(jax.jit(make())(state, first)[1]["loss"][0])
    both = float(jax.jit(make(micro_batches=2))(state, batch)[1]["loss"][0])
    assert both != pytest.approx(2 * alone, rel=1e-3)


def test_evaluation_uses_the_average_of_the_parameters(
    toy_task, toy_batch, descend, assert_trees_close
):
    task, batch, decay = toy_task(), toy_batch(9), 0.75
    state = _start(task, descend, 0, batch, decay)
    step = jax.jit(step_lib.make_train_step(task, descend, seed=0, ema_decay=decay))
    want = state.params
    for _ in range(3):
        state, _ = step(state, batch)
        want = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, want, state.params)
    assert_trees_close(state.ema, want, rtol=RTOL, atol=ATOL)

    sums = jax.jit(step_lib.make_eval_step(task))(state, batch)
    expected, _ = task.loss(want, state.net_state, None, batch, is_training=False)
    np.testing.assert_allclose(sums["loss"], expected["loss"], RTOL)
    raw, _ = task.loss(state.params, state.net_state, None, batch, is_training=False)
    assert abs(float(raw["loss"][0] - sums["loss"][0])) > 1e-3


def test_without_an_average_evaluation_uses_the_parameters(toy_task, toy_batch, descend):
    task, batch = toy_task(noise_rate=0.5), toy_batch(9)  # the noise must be off
    state = _start(task, descend, 0, batch, ema_decay=0.0)
    assert state.ema is None
    sums = jax.jit(step_lib.make_eval_step(task))(state, batch)
    expected, _ = task.loss(state.params, state.net_state, None, batch, is_training=False)
    np.testing.assert_allclose(sums["loss"], expected["loss"], RTOL)


def test_start_depends_on_the_seed_only(toy_task, toy_batch, descend, assert_trees_close):
    task = toy_task()
    specs = {
        name: jax.ShapeDtypeStruct((1000, *x.shape[1:]), x.dtype)
        for name, x in toy_batch(2).items()
    }
    state = _start(task, descend, 0, toy_batch(2))
    assert_trees_close(_start(task, descend, 0, specs), state)
    other = _start(task, descend, 1, specs)
    assert (other.params["enter"]["w"] != state.params["enter"]["w"]).any()


class _BrokenTask:
    """A loss that is finite at zero, where its gradient is not."""

    def init(self, rng, batch):
        return {"root": {"w": jnp.zeros(())}}, {}

    def loss(self, params, net_state, rng, batch, *, is_training):
        value = jnp.sqrt(params["root"]["w"])
        return {"loss": (value, jnp.ones(()))}, net_state


def test_a_broken_gradient_shows_although_the_loss_is_finite(descend):
    task, batch = _BrokenTask(), {"x": np.zeros((2, 3), np.float32)}
    state = _start(task, descend, 0, batch)
    _, sums = step_lib.make_train_step(task, descend, seed=0)(state, batch)
    sums = {name: (float(total), float(weight)) for name, (total, weight) in sums.items()}
    assert np.isfinite(sums["loss"]).all()
    assert not step_lib.is_finite(sums)
    assert step_lib.is_finite({"loss": sums["loss"]})
    assert not step_lib.is_finite({"loss": (1.0, float("nan"))})


def _start(task, optimizer, seed, batch, ema_decay=None):
    return jax.jit(lambda: step_lib.init_state(task, optimizer, seed, batch, ema_decay))()
