import functools
import re

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from train import step as step_lib
from train.devices import placement as placement_lib
from train.devices import sharding

pytestmark = pytest.mark.core

DEVICES, BATCH, STEPS = 8, 48, 5
OPTIMIZERS = {"lamb": optax.lamb(3e-2, weight_decay=0.1), "adamw": optax.adamw(1e-2)}
MESHES = {
    "fsdp": None,
    "data x fsdp": {"data": 2, "fsdp": -1, "sequence": 1},
    "data x sequence": {"data": -1, "fsdp": 1, "sequence": 4},
    "all three": {"data": 2, "fsdp": 2, "sequence": -1},
}
# Float32 after five steps; Adam's division shows rounding where a gradient is close to zero.
RTOL, ATOL = 1e-3, 2e-5


@pytest.fixture(scope="module")
def train(toy_task, toy_batch):
    """`train(placement_name, optimizer_name, micro_batches) -> (state, sums of each step)`."""

    @functools.cache  # several tests look at the same runs
    def run(placement_name, optimizer_name, micro_batches=1, ema_decay=0.9, mesh="fsdp"):
        placement = placement_lib.make(placement_name, MESHES[mesh])
        task, optimizer = toy_task(), OPTIMIZERS[optimizer_name]
        state = placement.init(
            lambda: step_lib.init_state(task, optimizer, 0, toy_batch(2), ema_decay)
        )
        make = functools.partial(
            step_lib.make_train_step,
            task,
            optimizer,
            seed=0,
            micro_batches=micro_batches,
            ema_decay=ema_decay,
        )
        step = placement.compile_train(make)
        history = []
        for index in range(STEPS):
            before = state
            state, sums = step(state, placement.put(toy_batch(BATCH, seed=index)))
            history.append(placement.fetch(sums))  # waits: collectives of two steps never queue
            assert all(x.is_deleted() for x in jax.tree.leaves(before))
        return state, history

    return run


@pytest.mark.parametrize("name", ["pmap", "sharded"])
def test_placements_agree(train, assert_trees_close, name):
    assert placement_lib.make(name).devices == DEVICES
    want, want_history = train("single", "lamb")
    got, history = train(name, "lamb")
    assert_trees_close(got, want, RTOL, ATOL)
    for sums, want_sums in zip(history, want_history, strict=True):
        for metric, (total, weight) in sums.items():
            want_total, want_weight = want_sums[metric]
            assert total / weight == pytest.approx(want_total / want_weight, rel=1e-4), metric
    lead = jax.tree.map(lambda x, past: np.abs(x - past).max(), got.params, got.ema)
    assert min(jax.tree.leaves(lead)) > 1e-3  # they did move


@pytest.mark.parametrize("name", ["pmap", "sharded"])
def test_micro_batches_change_nothing(train, assert_trees_close, name):
    whole, _ = train(name, "lamb")
    pieces, _ = train(name, "lamb", micro_batches=3)
    assert_trees_close(pieces.params, whole.params, RTOL, ATOL)


def test_sharded_state_is_really_split(train):
    state, _ = train("sharded", "lamb")
    rows = {row.path: row for row in sharding.sharding_table(state)}
    for path, row in rows.items():
        large = row.bytes_total >= 4 * sharding.MIN_SPLIT_ELEMENTS
        assert row.bytes_per_device == (row.bytes_total // DEVICES if large else row.bytes_total)
        if path.startswith("params/"):
            twins = [f"opt_state/0/{moment}" for moment in ("mu", "nu")] + ["ema"]
            assert {rows[path.replace("params", twin)].spec for twin in twins} == {row.spec}
    assert rows["params/layers/mix/w"].spec == P(None, "fsdp")  # [layers, in, out]

    # What the table says is what the devices hold.
    held = dict.fromkeys(jax.devices(), 0)
    for leaf in jax.tree.leaves(state):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    assert set(held.values()) == {sum(row.bytes_per_device for row in rows.values())}
    assert max(held.values()) < 0.2 * sum(row.bytes_total for row in rows.values())


def test_sharded_gathers_one_layer_at_a_time_and_never_examples(toy_task, toy_batch):
    task, optimizer, placement = toy_task(), OPTIMIZERS["lamb"], placement_lib.make("sharded")
    state = placement.init(lambda: step_lib.init_state(task, optimizer, 0, toy_batch(2)))
    make = functools.partial(step_lib.make_train_step, task, optimizer, seed=0, micro_batches=3)
    lowered = placement.compile_train(make).lower(state, placement.put(toy_batch(BATCH)))
    program = lowered.compile().as_text()
    gathered = re.findall(r"= (\S+?)(?:\{\S*)? all-gather\(", program)
    # One of the three stacked [64, 64] matrices, and the single large one.
    assert sorted(gathered) == ["f32[1,64,64]", "f32[64,128]"]
    assert "all-reduce" in program
    assert not re.search(r"all-to-all|collective-permute", program)


@pytest.mark.parametrize("name", placement_lib.NAMES)
def test_evaluation_counts_the_whole_batch(toy_task, toy_batch, name):
    task, batch, placement = toy_task(), toy_batch(BATCH), placement_lib.make(name)
    state = placement.init(lambda: step_lib.init_state(task, optax.sgd(0.1), 0, batch))
    evaluate = placement.compile_eval(step_lib.make_eval_step(task))
    sums = placement.fetch(evaluate(state, placement.put(batch)))
    want, _ = task.loss(state.params, state.net_state, None, batch, is_training=False)
    assert sums["loss"][0] == pytest.approx(float(want["loss"][0]), rel=1e-5)
    assert sums["loss"][1] == batch["mask"].sum()
    assert sums["rows"] == (batch["mask"].any(axis=1).sum(), BATCH)
    assert {type(value) for pair in sums.values() for value in pair} == {float}


@pytest.mark.parametrize(
    ("source", "target"),
    [("single", "sharded"), ("sharded", "pmap"), ("pmap", "pmap"), ("sharded", "single")],
)
def test_a_state_moves_between_placements(toy_task, toy_batch, assert_trees_close, source, target):
    task, batch = toy_task(), toy_batch(2)
    init = functools.partial(step_lib.init_state, task, OPTIMIZERS["lamb"], 0, batch)
    source, target = placement_lib.make(source), placement_lib.make(target)
    state = source.init(init)
    moved = target.place(source.canonical(state))
    assert_trees_close(moved, state)
    abstract = target.abstract(init)
    assert jax.tree.map(lambda x: x.sharding, moved) == jax.tree.map(lambda x: x.sharding, abstract)
    jax.tree.map(lambda x: x.delete(), moved)  # as a donating step does
    assert not any(x.is_deleted() for x in jax.tree.leaves(state))


def test_init_is_the_same_everywhere(toy_task, toy_batch, assert_trees_close):
    init = functools.partial(
        step_lib.init_state, toy_task(), OPTIMIZERS["adamw"], 7, toy_batch(3), 0.5
    )
    want = placement_lib.make("single").init(init)
    for name in ("pmap", "sharded"):
        placement = placement_lib.make(name)
        state = placement.init(init)
        assert_trees_close(state, want)
        abstract = placement.abstract(init)
        for got, spec in zip(jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True):
            assert (got.shape, got.dtype) == (spec.shape, spec.dtype)
            assert got.sharding.is_equivalent_to(spec.sharding, got.ndim)


def test_put_splits_rows_in_order():
    x = np.arange(48 * 3).reshape(48, 3)
    sharded = placement_lib.make("sharded").put({"x": x})["x"]
    replicas = placement_lib.make("pmap").put({"x": x})["x"]
    assert replicas.shape == (DEVICES, 6, 3)
    np.testing.assert_array_equal(sharded, x)
    np.testing.assert_array_equal(replicas.reshape(48, 3), x)
    for array in (sharded, replicas):
        for shard in array.addressable_shards:
            rows = slice(6 * shard.device.id, 6 * shard.device.id + 6)
            np.testing.assert_array_equal(np.reshape(shard.data, (6, 3)), x[rows])


@pytest.mark.parametrize(
    ("name", "size", "micro_batches", "words"),
    [
        ("pmap", 20, 1, ["20", "8 devices", "'pmap'", "16 or 24"]),
        ("sharded", 7, 1, ["7", "8 devices", "'sharded'", "such as 8"]),
        ("sharded", 40, 3, ["40", "8 devices x 3 micro-batches", "24 or 48"]),
        ("single", 10, 4, ["10", "1 device x 4 micro-batches", "8 or 12"]),
        ("pmap", 0, 1, ["0", "8 devices"]),
        ("single", 8, 0, ["micro_batches", "0"]),
    ],
)
def test_uneven_batches_are_refused_with_the_nearest_sizes(name, size, micro_batches, words):
    with pytest.raises(ValueError, match="batch") as error:
        placement_lib.make(name).check_batch(size, micro_batches)
    for word in words:
        assert word in str(error.value)


def test_rows_are_split_over_data_and_fsdp_only():
    placement = placement_lib.make("sharded", MESHES["data x sequence"])
    placement.check_batch(6, 3)
    with pytest.raises(ValueError, match=r"3 .* over 2 groups of 4 devices .* 2 or 4"):
        placement.check_batch(3)
    x = np.arange(8 * 3).reshape(8, 3)
    for shard in placement.put({"x": x})["x"].addressable_shards:
        rows = slice(0, 4) if shard.device.id < 4 else slice(4, 8)
        np.testing.assert_array_equal(shard.data, x[rows])


def test_state_is_split_over_fsdp_and_copied_over_data(toy_task, toy_batch):
    init = functools.partial(step_lib.init_state, toy_task(), OPTIMIZERS["lamb"], 0, toy_batch(2))
    whole = sharding.sharding_table(placement_lib.make("single").abstract(init))
    for name, parts in {"data x fsdp": 4, "data x sequence": 1, "all three": 2}.items():
        rows = sharding.sharding_table(placement_lib.make("sharded", MESHES[name]).abstract(init))
        for row, one in zip(rows, whole, strict=True):
            large = row.bytes_total >= 4 * sharding.MIN_SPLIT_ELEMENTS
            assert row.bytes_per_device == one.bytes_total // (parts if large else 1)


def test_meshes_agree(train, assert_trees_close):
    """The toy task has no elements to split: the devices of a sequence do the same work."""
    want, want_history = train("single", "lamb")
    got, history = train("sharded", "lamb", mesh="all three")
    assert_trees_close(got, want, RTOL, ATOL)
    for sums, want_sums in zip(history, want_history, strict=True):
        assert sums["loss"] == pytest.approx(want_sums["loss"], rel=1e-4)


def test_placements_name_their_axes():
    assert str(placement_lib.make("pmap")) == "pmap"
    assert str(placement_lib.make("sharded")) == "sharded (fsdp 8)"
    mesh = MESHES["data x sequence"]
    assert str(placement_lib.make("sharded", mesh)) == "sharded (data 2 x sequence 4)"


@pytest.mark.parametrize("name", ["single", "pmap"])
def test_only_a_mesh_splits_elements(name):
    with pytest.raises(
        ValueError, match=rf"mesh.sequence=2 .* {name!r} does not support; .* 'sharded'"
    ):
        placement_lib.make(name, {"data": 1, "fsdp": -1, "sequence": 2})
    assert placement_lib.make(name, {"data": 1, "fsdp": -1, "sequence": 1}).sequence is None


def test_even_batches_are_accepted():
    placement_lib.make("sharded").check_batch(24, 3)
    placement_lib.make("single").check_batch(7)


@pytest.mark.parametrize("name", ["pmap", "sharded"])
def test_put_refuses_uneven_and_ragged_batches(name):
    placement = placement_lib.make(name)
    with pytest.raises(ValueError, match=r"batch size 12 .* 8 or 16"):
        placement.put({"x": np.zeros((12, 3))})
    with pytest.raises(ValueError, match=r"'x': 16.*'y': 8"):
        placement.put({"x": np.zeros((16, 3)), "y": np.zeros((8, 3))})


def test_bad_placements_are_refused():
    with pytest.raises(ValueError, match=r"'fsdp'.*single, pmap, sharded"):
        placement_lib.make("fsdp")
    with pytest.raises(ValueError, match=r"'single' uses one device, got 8"):
        placement_lib.make("single", devices=jax.devices())
    with pytest.raises(ValueError, match="at least one device"):
        placement_lib.make("pmap", devices=[])


def test_a_subset_of_the_devices_is_honoured(toy_task, toy_batch):
    task, devices = toy_task(), jax.devices()[3:6]
    batch = toy_batch(6)
    for name in ("pmap", "sharded"):
        placement = placement_lib.make(name, devices=devices)
        state = placement.init(lambda: step_lib.init_state(task, optax.sgd(0.1), 0, batch))
        make = functools.partial(step_lib.make_train_step, task, optax.sgd(0.1), seed=0)
        state, sums = placement.compile_train(make)(state, placement.put(batch))
        placement.fetch(sums)
        assert state.params["enter"]["w"].sharding.device_set == set(devices)
