"""What the tests of training share: a toy task (a small Haiku network with a masked loss)."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train import runs

INPUTS, OUTPUTS, CHANNELS, LAYERS = 5, 7, 64, 3


def _network(x, *, is_training, noise_rate):  # [B, INPUTS] -> [B, OUTPUTS]
    """Stacked layers, a running mean and a counter as net_state, noise if asked for."""
    passes = hk.get_state("passes", (), jnp.int32, init=jnp.zeros)
    average = hk.get_state("average", (INPUTS,), init=jnp.zeros)
    if is_training:
        hk.set_state("passes", passes + 1)
        hk.set_state("average", 0.9 * average + 0.1 * x.mean(axis=0))
    y = hk.Linear(CHANNELS, name="enter")(x)  # [B, CHANNELS]
    if is_training and noise_rate:
        y = hk.dropout(hk.next_rng_key(), noise_rate, y)
    y = hk.layer_stack(LAYERS, name="layers")(
        lambda y: y + jnp.tanh(hk.Linear(CHANNELS, name="mix")(y))
    )(y)
    return hk.Linear(OUTPUTS, name="leave")(jnp.tanh(hk.Linear(2 * CHANNELS, name="widen")(y)))


@dataclasses.dataclass(frozen=True)
class ToyTask:
    """Squared error over the entries that `mask` counts."""

    noise_rate: float = 0.0

    def _transformed(self, is_training):
        return hk.transform_with_state(
            lambda x: _network(x, is_training=is_training, noise_rate=self.noise_rate)
        )

    def init(self, rng, batch):
        return self._transformed(is_training=True).init(rng, batch["x"])

    def loss(self, params, net_state, rng, batch, *, is_training):
        apply = self._transformed(is_training).apply
        y, net_state = apply(params, net_state, rng, batch["x"])
        mask = batch["mask"].astype(jnp.float32)
        error = jnp.sum(mask * jnp.square(y - batch["y"]))
        weight = jnp.sum(mask)
        rows = batch["mask"].any(axis=1).astype(jnp.float32)  # [B], 1 where anything counts
        return {"loss": (error, weight), "rows": (rows.sum(), jnp.float32(rows.size))}, net_state


def make_batch(size, seed=0):
    """Masks that thin out along the batch, so that no two parts of it have the same weight."""
    rng = np.random.default_rng(seed)
    keep_rate = np.linspace(1.0, 0.1, size)[:, None]
    return {
        "x": rng.normal(size=(size, INPUTS)).astype(np.float32),
        "y": rng.normal(size=(size, OUTPUTS)).astype(np.float32),
        "mask": rng.random((size, OUTPUTS)) < keep_rate,
    }


@pytest.fixture
def _shared_programs():
    """Runs of one config share their compiled programs, see `runs.shared_programs`."""
    with runs.shared_programs():
        yield


@pytest.fixture(scope="session")
def toy_task():
    """The class of the toy task: `toy_task()`, `toy_task(noise_rate=0.5)`."""
    return ToyTask


@pytest.fixture(scope="session")
def toy_batch():
    """`toy_batch(size, seed)` draws a batch for the toy task."""
    return make_batch


@pytest.fixture(scope="session")
def assert_trees_close():
    """`assert_trees_close(got, want, rtol, atol)`, naming the leaf that differs."""

    def check(got, want, rtol=0.0, atol=0.0):
        got = jax.tree_util.tree_leaves_with_path(got)
        want = jax.tree_util.tree_leaves_with_path(want)
        assert [path for path, _ in got] == [path for path, _ in want]
        for (path, a), (_, b) in zip(got, want, strict=True):
            np.testing.assert_allclose(
                np.asarray(a), np.asarray(b), rtol, atol, err_msg=jax.tree_util.keystr(path)
            )

    return check
