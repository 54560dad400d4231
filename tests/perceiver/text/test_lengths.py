"""Batches of texts of about one length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver.text import lengths


@given(st.lists(st.integers(1, 700), min_size=1, max_size=60), st.integers(1, 17))
def test_every_text_is_in_one_batch_and_none_is_shorter_than_a_later_one(sizes, batch_size):
    found = lengths.batches(sizes, batch_size)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(sizes)))
    assert [len(places) for places in found[:-1]] == [batch_size] * (len(found) - 1)
    in_turn = np.array(sizes)[np.concatenate(found)]
    assert (np.diff(in_turn) <= 0).all()


@given(st.lists(st.integers(1, 700), min_size=1, max_size=60), st.integers(1, 17))
def test_sorting_never_costs_more_than_the_order_of_the_file(sizes, batch_size):
    sizes = np.array(sizes)
    best = lengths.cost(sizes, lengths.batches(sizes, batch_size), 700)
    in_order = lengths.in_order(np.arange(len(sizes)), batch_size)
    # The last batch has fewer texts, which may happen to be the long ones of a file in its order.
    last = len(in_order[-1]) * (700 if len(in_order[-1]) < batch_size else 0)
    assert sizes.sum() <= best <= lengths.cost(sizes, in_order, 700) + last


def test_equal_lengths_stay_in_order():
    found = lengths.batches([5, 3, 5, 9, 3], 2)
    assert [places.tolist() for places in found] == [[3, 0], [2, 1], [4]]


def test_a_batch_is_padded_to_a_power_of_two_or_to_all_there_is():
    lengths_and_padded = {1: 64, 64: 64, 65: 128, 129: 150, 150: 150}
    assert {n: lengths.padded(n, 150) for n in lengths_and_padded} == lengths_and_padded
    sizes = np.array([3, 100, 64, 2])
    assert lengths.cost(sizes, lengths.batches(sizes, 2), 150) == 2 * 128 + 2 * 64
    assert lengths.cost(sizes, lengths.in_order(np.arange(4), 2), 150) == 2 * 128 + 2 * 64


def test_a_batch_has_one_text_at_least():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        lengths.batches([1], 0)
