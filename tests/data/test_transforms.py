import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from data import transforms

_WORD = st.integers(0, 2**63 - 1)


def draw(numbers):
    return transforms.generator(*numbers).integers(2**62, size=3).tolist()


@hypothesis.given(
    numbers=st.tuples(_WORD, st.integers(0, 2), _WORD, _WORD),
    place=st.integers(0, 3),
    other=st.integers(0, 2),
)
def test_generator_is_a_function_of_all_its_four_numbers(numbers, place, other):
    changed = (*numbers[:place], other, *numbers[place + 1 :])
    assert draw(numbers) == draw(numbers)
    assert (draw(changed) == draw(numbers)) == (changed == numbers)


def test_neighbouring_generators_are_uncorrelated():
    numbers = [(seed, epoch, i) for seed in range(2) for epoch in range(2) for i in range(500)]
    draws = np.array(
        [transforms.generator(s, transforms.EXAMPLE, e, i).random() for s, e, i in numbers]
    )
    # 2,000 uniform draws: mean and lag-one correlation within four standard deviations.
    assert abs(draws.mean() - 0.5) < 4 * (1 / 12 / 2000) ** 0.5
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 / 2000**0.5


def test_apply_runs_in_order_and_leaves_the_input(rng):
    example = {"a": 3, "b": 5}
    chain = (transforms.Cast("a", np.int32), transforms.Keep(("a",)))
    result = transforms.apply(chain, example, rng)
    assert result == {"a": 3}
    assert result["a"].dtype == np.int32
    assert example == {"a": 3, "b": 5}


def test_keep_names_what_is_missing(rng):
    with pytest.raises(ValueError, match=r"no field \['c'\] in an example with \['a', 'b'\]"):
        transforms.Keep(("a", "c"))({"a": 3, "b": 5}, rng)
