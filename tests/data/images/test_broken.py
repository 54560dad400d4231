"""Examples that cannot be read: left out, told once, counted up to a limit."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from data.batches import Batches
from data.dataset import BrokenExample, Dataset, name
from data.images import preprocessing

_N, _B = 23, 6  # examples and batch size: neither divides the other
_BROKEN = (0, 5, 11, 17)


@dataclasses.dataclass(frozen=True)
class Files:
    """Examples with names, some of which cannot be read."""

    broken: tuple[int, ...] = _BROKEN

    def __len__(self):
        return _N

    def name(self, index):
        return f"n{index:02}.jpg"

    def example(self, index, epoch):
        if index in self.broken:
            raise BrokenExample(f"cut short at byte {index}")
        return {"index": np.int32(index), "label": np.full(3, 7.0 + index)}


@dataclasses.dataclass(frozen=True)
class Noise:
    """Random numbers, so that a shifted generator would be seen."""

    def __call__(self, example, rng):
        return example | {"noise": rng.random(2)}


@pytest.fixture
def make():
    """Returns a function that makes batches of files and closes them after the test."""
    made = []

    def make(source=None, train=True, broken_limit=4, **keywords):
        dataset = Dataset(source or Files(), (Noise(),), threads=2)
        limit = {"broken_limit": broken_limit}
        made.append(Batches(dataset, batch_size=_B, seed=3, train=train, **limit, **keywords))
        return made[-1]

    yield make
    for batches in made:
        batches.close()


def take(batches, count):
    taken = list(itertools.islice(batches, count))
    return {field: np.concatenate([batch[field] for batch in taken]) for field in taken[0]}


def expected(indices):
    return {i: f"n{i:02}.jpg: cut short at byte {i}" for i in indices}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("train", [True, False])
def test_broken_rows_are_zeros_and_move_no_other(make, train, workers):
    broken = make(train=train, workers=workers)
    healthy = make(Files(()), train=train)
    count = 2 * _N // _B if train else broken.num_batches
    ours, whole = take(broken, count), take(healthy, count)
    lost = np.isin(whole["index"], _BROKEN) & whole["mask"]
    np.testing.assert_array_equal(ours["mask"], whole["mask"] & ~lost)
    for field in ("index", "label", "noise"):
        assert not ours[field][lost].any()
        np.testing.assert_array_equal(ours[field][~lost], whole[field][~lost])
    assert broken.broken == expected(_BROKEN)
    assert healthy.broken == {}


def test_what_is_told_has_been_delivered(make):
    batches = make(train=False)
    assert batches.broken == {}  # though example 0 was tried, for the spec
    told = [dict(batches.broken) for _ in batches]
    assert told == [expected(i for i in _BROKEN if i < _B * n) for n in (1, 2, 3, 4)]
    list(batches)  # a second pass tells nothing twice
    assert batches.broken == expected(_BROKEN)


@pytest.mark.parametrize("train", [True, False])
def test_hosts_tell_their_own_parts(make, train):
    whole = make(train=train)
    parts = [make(train=train, host_index=host, host_count=2) for host in range(2)]
    for _ in range(4):
        joined = [next(part) for part in parts]
        for field, rows in next(whole).items():
            np.testing.assert_array_equal(rows, np.concatenate([part[field] for part in joined]))
    assert parts[0].broken | parts[1].broken == whole.broken
    if not train:
        assert not parts[0].broken.keys() & parts[1].broken.keys()
        assert parts[0].broken
        assert parts[1].broken


def test_a_resumed_run_continues_exactly(make):
    first, second = make(), make()
    take(first, 3)
    second.restore(first.state())
    ours, theirs = take(first, 5), take(second, 5)
    for field in ours:
        np.testing.assert_array_equal(ours[field], theirs[field])
    assert second.broken.items() <= first.broken.items()


def test_one_more_than_the_limit_ends_the_run(make):
    batches = make(train=False, broken_limit=2)
    next(batches)  # 0 and 5: as many as allowed
    message = (
        r"3 examples cannot be read, and data\.broken_limit is 2\. The last: n00\.jpg: cut short "
        r"at byte 0; n05\.jpg: .*; n11\.jpg: .* Repair or remove them"
    )
    with pytest.raises(ValueError, match=message):
        next(batches)


def test_repeated_epochs_count_an_example_once(make):
    batches = make(broken_limit=len(_BROKEN))
    take(batches, 5 * _N)
    assert batches.broken == expected(_BROKEN)


def test_nothing_readable_is_an_error_before_the_first_batch(make):
    with pytest.raises(ValueError, match=r"none of the 23 examples can be read: .*n22\.jpg: cut"):
        make(Files(tuple(range(_N))), train=False, broken_limit=_N)
    # Nor is a whole data set tried where the limit says after a few that something is wrong.
    with pytest.raises(ValueError, match="4 examples cannot be read"):
        make(Files(tuple(range(_N))), broken_limit=3)


def test_a_bad_limit(make):
    with pytest.raises(ValueError, match=r"data\.broken_limit must be at least 0, got -1"):
        make(broken_limit=-1)


def test_a_source_without_names_has_numbers():
    assert name(Files(), 4) == "n04.jpg"
    assert name([], 17) == "example 17"


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    "transform",
    [preprocessing.Decode(3), preprocessing.CentralCrop(7, 3), preprocessing.InceptionCrop(7, 3)],
)
@pytest.mark.parametrize("damage", ["header", "body", "nothing"])
def test_damaged_pictures_are_broken_examples(rng, transform, damage):
    whole = jpeg(rng.integers(0, 256, (37, 53, 3), dtype=np.uint8))
    bad = {"header": b"\0" * 9 + whole[9:], "body": whole[: len(whole) // 2], "nothing": b""}
    with pytest.raises(BrokenExample, match=r"cannot decode an image from \d+ bytes"):
        transform({"image": bad[damage]}, rng)


def test_a_programs_error_is_no_broken_example(rng):
    with pytest.raises(ValueError, match="channels must be 1 or 3") as caught:
        preprocessing.Decode(2)({"image": jpeg(np.zeros((5, 5, 3), np.uint8))}, rng)
    assert not isinstance(caught.value, BrokenExample)
