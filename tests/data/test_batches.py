import dataclasses
import itertools
import json

import numpy as np
import pytest

import data
from data.batches import Batches
from data.dataset import Dataset

_N = 23  # examples
_B = 6  # batch size: neither divides the other


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Examples that say which they are and in which epoch they were read."""

    size: int = _N

    def __len__(self):
        return self.size

    def example(self, index, epoch):
        return {"index": np.int32(index), "epoch": np.int64(epoch)}


@dataclasses.dataclass(frozen=True)
class Noise:
    """Adds random numbers, so that a wrong generator is seen."""

    def __call__(self, example, rng):
        return example | {"noise": rng.random(3)}


@pytest.fixture
def make():
    """Returns a function that makes batches of numbers and closes them after the test."""
    made = []

    def make(size=_N, batch_size=_B, seed=0, train=True, transforms=(Noise(),), **keywords):
        dataset = Dataset(Numbers(size), transforms, threads=2)
        made.append(Batches(dataset, batch_size=batch_size, seed=seed, train=train, **keywords))
        return made[-1]

    yield make
    for batches in made:
        batches.close()


def take(batches, count):
    """Returns the next batches as one dict of concatenated arrays."""
    taken = list(itertools.islice(batches, count))
    return {name: np.concatenate([batch[name] for batch in taken]) for name in taken[0]}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_every_epoch_is_another_permutation(make):
    stream = take(make(), _N)  # B epochs, batches straddle their borders
    epochs = stream["index"].reshape(_B, _N)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(_N), (_B, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == _B
    np.testing.assert_array_equal(stream["epoch"], np.repeat(np.arange(_B), _N))
    assert stream["mask"].all()


def test_order_and_noise_depend_on_the_seed_alone(make):
    a, b, other = take(make(seed=5), 9), take(make(seed=5), 9), take(make(seed=6), 9)
    assert_equal(a, b)
    assert (a["index"] != other["index"]).any()
    # Seeds are not shifted epochs of each other, as seed + epoch would make them.
    second = take(make(seed=5), 2 * _N)["index"][_N : 2 * _N]
    assert (second != take(make(seed=6), _N)["index"][:_N]).any()


def test_noise_belongs_to_seed_epoch_and_index(make):
    small, large = take(make(batch_size=2), 2 * _N), take(make(batch_size=_N), 4)
    key = {}
    for index, epoch, noise in zip(*(small[n] for n in ("index", "epoch", "noise")), strict=True):
        key[int(index), int(epoch)] = tuple(noise)
    assert len(set(key.values())) == len(key)
    for index, epoch, noise in zip(*(large[n] for n in ("index", "epoch", "noise")), strict=True):
        assert key.get((int(index), int(epoch)), tuple(noise)) == tuple(noise)


@pytest.mark.parametrize("delivered", [0, 1, 2, 3, 4, 11])
def test_restore_continues_exactly(make, delivered):
    first, second = make(), make()
    for _ in range(delivered):
        next(first)
    state = json.loads(json.dumps(first.state()))
    assert state == {"batches": delivered}
    take(second, 2)  # restore also rewinds and drops what was read ahead
    second.restore(state)
    assert second.state() == state
    assert_equal(take(first, 7), take(second, 7))
    assert second.state() == {"batches": delivered + 7}


def test_restore_far_away_reads_nothing_on_the_way(make):
    batches = make()
    batches.restore({"batches": 23 * 10**12})
    np.testing.assert_array_equal(next(batches)["epoch"], 6 * 10**12)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_hold_disjoint_parts_of_the_one_host_batch(make, train, hosts):
    whole = make(train=train)
    parts = [make(train=train, host_index=host, host_count=hosts) for host in range(hosts)]
    for _ in range(4):
        joined = [next(part) for part in parts]
        joined = {name: np.concatenate([part[name] for part in joined]) for name in joined[0]}
        assert_equal(next(whole), joined)


@pytest.mark.parametrize("hosts", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 17, 18, 19, _N])
def test_evaluation_counts_each_example_once(make, hosts, size):
    seen, lengths = [], set()
    for host in range(hosts):
        batches = make(size=size, train=False, host_index=host, host_count=hosts)
        one_pass = list(batches)
        lengths.add(len(one_pass))
        assert len(one_pass) == batches.num_batches
        assert batches.num_examples == size
        for batch in one_pass:
            assert {name: (x.shape, x.dtype) for name, x in batch.items()} == batches.spec
            seen.extend(batch["index"][batch["mask"]])
            assert not batch["noise"][~batch["mask"]].any()
    assert len(lengths) == 1  # hosts meet in every collective
    assert sorted(seen) == list(range(size))


def test_evaluation_is_in_order_restartable_and_repeatable(make):
    batches = make(train=False)
    first = take(batches, 4)
    np.testing.assert_array_equal(first["index"][:_N], np.arange(_N))
    with pytest.raises(StopIteration):
        next(batches)
    assert batches.state() == {"batches": 4}
    assert_equal(first, take(batches, 4))  # iter() starts again, with the same noise
    batches.restore({"batches": 3})
    assert next(batches)["index"][0] == 18


def test_training_iter_does_not_start_again(make):
    batches = make()
    one = next(iter(batches))["index"]
    two = next(iter(batches))["index"]
    assert (one != two).any()
    assert batches.state() == {"batches": 2}


def test_spec_is_true_and_local(make):
    batches = make(host_count=3)
    assert batches.batch_size == _B
    assert batches.spec["noise"] == ((2, 3), np.dtype(np.float64))
    batch = next(batches)
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == batches.spec


@pytest.mark.parametrize("train", [True, False])
def test_workers_give_the_same_batches_and_positions(make_config, train):
    def load(workers):
        config = make_config(augment="digits", workers=workers)
        return data.load(config, "validation", batch_size=97, seed=3, train=train)

    threads, processes = load(0), load(2)
    processes.restore({"batches": 1})
    next(threads)
    for _ in range(3):
        assert_equal(next(threads), next(processes))
    assert processes.state() == threads.state()
    if not train:
        threads.restore(processes.state())
        for batches in (threads, processes):
            assert [len(batch["label"]) for batch in rest_of(batches)] == [97] * 3
    threads.close()
    processes.close()


def rest_of(batches):
    """Yields what is left of a pass, without starting it again."""
    while batches.state()["batches"] < batches.num_batches:
        yield next(batches)
    with pytest.raises(StopIteration):
        next(batches)


@dataclasses.dataclass(frozen=True)
class Fail:
    """A transform that fails at one example."""

    def __call__(self, example, rng):
        if example["index"] == 13:
            raise RuntimeError("example 13 is broken")
        return example


def test_an_error_in_a_transform_reaches_the_consumer(make):
    batches = make(train=False, transforms=(Fail(),))
    next(batches), next(batches)
    with pytest.raises(RuntimeError, match="example 13 is broken"):
        next(batches)


@dataclasses.dataclass(frozen=True)
class Grow:
    """A transform whose result varies in shape."""

    def __call__(self, example, rng):
        return {"x": np.zeros(1 + int(example["index"]))}


def test_unequal_shapes_are_named(make):
    batches = make(train=False, transforms=(Grow(),))
    with pytest.raises(ValueError, match=r"field 'x' has shape \(2,\) in one example and \(1,\)"):
        next(batches)


@pytest.mark.parametrize(
    "state", [{}, {"batches": -1}, {"batches": "3"}, {"batches": 1, "x": 2}, {"next_index": 4}]
)
def test_bad_state(make, state):
    with pytest.raises(ValueError, match="the state must be"):
        make().restore(state)


def test_state_past_the_end(make):
    batches = make(train=False)
    batches.restore({"batches": 4})
    with pytest.raises(ValueError, match="past the last of 4 batches"):
        batches.restore({"batches": 5})


def test_bad_arguments(make):
    with pytest.raises(ValueError, match="no examples"):
        make(size=0)
    with pytest.raises(ValueError, match=r"seed must be in .* got -1"):
        make(seed=-1)
    with pytest.raises(ValueError, match=r"data\.workers must be at least 0 .* got -2"):
        make(workers=-2)
    with pytest.raises(ValueError, match="is not divisible by 4 hosts"):
        make(host_count=4)
