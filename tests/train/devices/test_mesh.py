import jax
import numpy as np
import pytest

from train.devices import mesh


def sizes(data=1, fsdp=1, sequence=1):
    return {"data": data, "fsdp": fsdp, "sequence": sequence}


@pytest.mark.parametrize(
    ("wanted", "devices", "shape"),
    [
        (mesh.DEFAULT, 8, (1, 8, 1)),
        (mesh.DEFAULT, 1, (1, 1, 1)),
        (sizes(data=2, fsdp=-1), 8, (2, 4, 1)),
        (sizes(data=-1, sequence=4), 8, (2, 1, 4)),
        (sizes(data=3, fsdp=5, sequence=-1), 15, (3, 5, 1)),
        (sizes(data=2, fsdp=3, sequence=2), 12, (2, 3, 2)),
    ],
)
def test_one_size_may_be_left_open(wanted, devices, shape):
    assert mesh.shape_of(wanted, devices) == shape


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (sizes(data=2, fsdp=2), ["multiply to 4", "8 devices", "mesh.fsdp=-1"]),
        (sizes(data=16), ["multiply to 16", "8 devices"]),
        (sizes(data=3, fsdp=-1), ["3 x -1", "8 devices", "mesh.fsdp=-1"]),
        (sizes(data=-1, fsdp=-1), ["only one", "mesh.data=-1, mesh.fsdp=-1, mesh.sequence=1"]),
        (sizes(fsdp=0), ["mesh.fsdp must be at least 1, or -1"]),
        (sizes(sequence=-2), ["mesh.sequence must be at least 1"]),
    ],
)
def test_sizes_that_cannot_be_are_refused(wanted, words):
    with pytest.raises(ValueError, match=r"mesh\.") as error:
        mesh.shape_of(wanted, 8)
    for word in words:
        assert word in str(error.value)


def test_the_devices_of_a_sequence_are_neighbours():
    made = mesh.make(jax.devices()[::-1], sizes(data=2, fsdp=2, sequence=2))
    assert made.axis_names == mesh.AXES
    ids = [[device.id for device in group] for group in mesh.groups(made)]
    assert ids == [[0, 1], [2, 3], [4, 5], [6, 7]]
    np.testing.assert_array_equal(mesh.owners(made), np.zeros((4, 2)))


# hosts x devices of a host, devices of a sequence -> for each host (index, count)
FEEDS = {
    "a row for each device": ((2, 4), 1, [(0, 2), (1, 2)]),
    "two groups on a host": ((2, 4), 2, [(0, 2), (1, 2)]),
    "a host is a group": ((2, 4), 4, [(0, 2), (1, 2)]),
    "two hosts are a group": ((4, 2), 4, [(0, 2), (0, 2), (1, 2), (1, 2)]),
    "all hosts are a group": ((4, 2), 8, [(0, 1)] * 4),
}


@pytest.mark.parametrize("case", FEEDS)
def test_hosts_of_a_sequence_load_the_same_rows(case):
    (hosts, each), sequence, want = FEEDS[case]
    owners = np.repeat(np.arange(hosts), each).reshape(-1, sequence)
    assert [mesh.host_rows(owners, host) for host in range(hosts)] == want


@pytest.mark.parametrize(
    "owners",
    [
        [[0, 0, 0], [0, 1, 1], [1, 1, 1]],  # three devices of four
        [[0], [0], [1]],  # hosts of different size
        [[0], [1], [0], [1]],  # a host's rows are not adjacent
    ],
)
def test_hosts_that_would_share_rows_in_part_are_refused(owners):
    with pytest.raises(ValueError, match=rf"mesh.sequence={len(owners[0])} splits the 2 host"):
        mesh.host_rows(np.array(owners), 0)


def test_a_host_without_devices_is_told():
    with pytest.raises(ValueError, match="host 3 has none"):
        mesh.host_rows(np.zeros((4, 2), int), 3)
