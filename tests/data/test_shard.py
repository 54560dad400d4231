import numpy as np
import pytest

from data.shard import Share


@pytest.mark.parametrize("hosts", [1, 2, 3, 7])
def test_parts_end_to_end_are_the_global_batch(hosts):
    parts = [Share(42, host, hosts).positions(5) for host in range(hosts)]
    assert {len(part) for part in parts} == {42 // hosts}
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(210, 252))


def test_batches_cover_the_examples():
    assert [Share(7).batches(n) for n in (1, 6, 7, 8, 14, 15)] == [1, 1, 1, 2, 2, 3]


def test_indivisible_batch_names_the_remedy():
    with pytest.raises(ValueError, match="batch_size 10 is not divisible by 4 hosts: use 8 or 12"):
        Share(10, 0, 4)
    with pytest.raises(ValueError, match=r"by 4 hosts: use 4$"):
        Share(3, 0, 4)


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_bad_host(index, count):
    with pytest.raises(ValueError, match=f"host_index {index}"):
        Share(4, index, count)


def test_empty_batch():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Share(0)
