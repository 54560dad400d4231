"""How many elements a step of the online softmax takes."""

import hypothesis
from hypothesis import strategies as st

from perceiver.cross_attention.online import chunk_size


@hypothesis.given(size=st.integers(1, 10**6), queries=st.integers(1, 10**5))
def test_chunks_fit_the_elements_and_the_budget(size, queries):
    length = chunk_size(size, queries)
    assert 1 <= length <= size
    assert length == 1 or length <= 64 or length * queries <= 2**19


def test_few_elements_take_one_step():
    assert chunk_size(1000, 512) == 1000


def test_steps_are_of_equal_length_where_a_little_less_allows_it():
    assert chunk_size(224 * 224, 2 * 512) == 512
    assert chunk_size(1_000_000, 512) == 1000  # rather than 977 steps of 1024 and a shorter one


def test_elements_that_divide_into_nothing_leave_a_shorter_step():
    assert chunk_size(10_007, 512) == 1001  # a prime number of elements: 9 steps, and one of 998


def test_very_many_queries_still_take_a_few_elements():
    assert chunk_size(10_000, 10**7) >= 60
