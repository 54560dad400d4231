"""Class balance: how often, and that it is the same again."""

import numpy as np
import pytest

from data.batches import Batches
from data.clips import class_balance
from data.clips.class_balance import BalancedClips, ClipLabels
from data.dataset import BrokenExample, Dataset

# 23 examples: class 0 in all but the last two, class 1 in five, class 2 in one, class 3 in none.
_LABELS = [[0]] * 15 + [[0, 1]] * 5 + [[0, 2]] + [[]] * 2
_N = len(_LABELS)


@pytest.fixture
def shares():
    return class_balance.shares(ClipLabels.of([np.array(each, np.int64) for each in _LABELS]), 4)


class Numbers:
    """Examples are their numbers."""

    def __init__(self, broken=()):
        self.broken = broken

    def __len__(self):
        return _N

    def name(self, index):
        return f"clip {index}"

    def example(self, index, epoch):
        if index in self.broken:
            raise BrokenExample("damaged")
        return {"number": np.int32(index)}


def test_shares_go_by_the_rarest_class(shares):
    weights = np.array([1 / 21] * 15 + [1 / 5] * 5 + [1.0] + [1 / 21] * 2)
    np.testing.assert_allclose(shares, weights / weights.sum(), rtol=1e-12)


def test_every_epoch_draws_each_as_often_as_expected(shares):
    source = BalancedClips(Numbers(), shares, seed=3)
    expected = _N * shares
    total, epochs = np.zeros(_N), 4001
    for epoch in range(epochs):
        drawn = [source.stored(i, epoch) for i in range(_N)]
        counts = np.bincount(drawn, minlength=_N)
        assert counts.sum() == _N
        assert (counts >= np.floor(expected)).all()
        assert (counts <= np.ceil(expected)).all()
        total += counts
    # A count is one of two neighbours: its deviation is at most a half.
    assert np.abs(total / epochs - expected).max() < 5 * 0.5 / np.sqrt(epochs)


def test_draws_depend_on_seed_and_epoch_alone(shares):
    def draws(seed, epoch):
        source = BalancedClips(Numbers(), shares, seed)
        return [source.stored(i, epoch) for i in range(_N)]

    assert draws(3, 5) == draws(3, 5)
    assert len({tuple(draws(3, epoch)) for epoch in range(50)}) > 3
    assert len({tuple(draws(seed, 0)) for seed in range(50)}) > 3


def test_equal_shares_draw_each_once():
    source = BalancedClips(Numbers(), np.full(_N, 1 / _N), seed=1)
    for epoch in range(100):
        assert [source.stored(i, epoch) for i in range(_N)] == list(range(_N))


def test_what_is_broken_is_counted_once_by_its_own_name(shares):
    rarest = 20  # comes several times in each epoch, by other numbers
    source = BalancedClips(Numbers(broken=(rarest,)), shares, seed=3)
    batches = Batches(Dataset(source, ()), batch_size=_N, seed=3, train=True, broken_limit=1)
    for _ in range(5):
        batch = next(batches)
        assert (~batch["mask"]).sum() > 5
    batches.close()
    assert batches.broken == {rarest: "clip 20: damaged"}


def test_no_labels_at_all():
    with pytest.raises(ValueError, match=r"data\.class_balanced: no clip has a label"):
        class_balance.shares(ClipLabels.of([np.array([], np.int64)] * 3), 4)
