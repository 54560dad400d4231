import collections
import pickle

import numpy as np
import pytest

from data.text.crops import Crops
from data.text.text_store import open_store

_L = 31


@pytest.fixture
def make(tmp_path, rng, write_store):
    """Returns a function: lengths of documents, settings -> crops; every byte is random."""

    def make(lengths, documents=3, seq_len=_L, seed=0):
        contents = [rng.integers(256, size=n).astype(np.uint8).tobytes() for n in lengths]
        folder = write_store(tmp_path / f"store{len(list(tmp_path.iterdir()))}", contents)
        return Crops(open_store(folder), seq_len, documents, seed)

    return make


def taken(crops, epoch):
    return [tuple(crops.pieces(index, epoch)) for index in range(len(crops))]


@pytest.mark.parametrize("documents", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("lengths", [[101] * 13, [5, 3, 0, 211, 1, 47, 2, 2, 97, 31, 32, 30]])
def test_crops_are_pieces_of_neighbouring_documents(make, lengths, documents):
    crops = make(lengths, documents)
    for epoch in range(3):
        _, order, ends = crops._layout(epoch)
        assert sorted(order.tolist()) == list(range(len(lengths)))
        place = {number: i for i, number in enumerate(order.tolist())}
        for index in range(len(crops)):
            pieces = crops.pieces(index, epoch)
            places = [place[number] for number, _, _ in pieces]
            group = {i // documents for i in places}
            assert len(group) == 1  # no crop reaches from one group into the next
            assert len(pieces) <= documents
            content = [crops.store.document(number)[a:b] for number, a, b in pieces]
            example = crops.example(index, epoch)
            np.testing.assert_array_equal(example["bytes"], np.concatenate(content))
            (number,) = group
            first, last = number * documents, min((number + 1) * documents, len(order)) - 1
            size = int(ends[last]) - (int(ends[first - 1]) if first else 0)
            assert len(example["bytes"]) == min(_L, size)  # full, or the whole group
            # Only the first piece may begin within its document, only the last may end there.
            assert all(a == 0 for _, a, _ in pieces[1:])
            assert all(b == lengths[number] for number, _, b in pieces[:-1])


@pytest.mark.parametrize("documents", [1, 3, 10])
def test_no_crop_twice_in_an_epoch(make, documents):
    crops = make([41, 67, 3, 103, 59, 211, 7, 31, 32, 33, 127], documents)
    for epoch in range(5):
        found = taken(crops, epoch)
        assert len(found) == 714 // _L
        assert len(set(found)) == len(found)


def test_each_byte_comes_equally_often(make):
    crops = make([613, 701, 797, 809, 907, 1009], documents=2)
    seen = collections.Counter()
    epochs = 60
    for epoch in range(epochs):
        for pieces in taken(crops, epoch):
            seen.update(
                byte for number, a, b in pieces for byte in ((number, i) for i in (a, b - 1))
            )
    total = np.zeros(6)
    for (number, _), count in seen.items():
        total[number] += count
    share = total / total.sum()
    np.testing.assert_allclose(share, np.array([613, 701, 797, 809, 907, 1009]) / 4836, atol=0.02)


def test_epochs_and_seeds_differ_and_repeat(make):
    crops = make([101] * 13)
    assert taken(crops, 0) == taken(crops, 0)
    assert taken(crops, 0) != taken(crops, 1)
    other = Crops(crops.store, _L, 3, seed=1)
    assert taken(other, 0) != taken(crops, 0)


def test_a_copy_in_another_process_cuts_the_same(make):
    crops = make([101] * 13)
    expected = taken(crops, 4)
    content = pickle.dumps(crops)
    assert len(content) < 1_000  # without the layouts
    assert taken(pickle.loads(content), 4) == expected


def test_mean_bytes_is_what_crops_hold(make):
    crops = make([7, 11, 13, 17, 101, 103, 2, 3] * 11, documents=2)
    # Mean over random places of the epoch that it is computed of.
    _, _, ends = crops._layout(0)
    sizes = np.diff(ends[1::2], prepend=0)
    places = np.repeat(sizes, sizes.astype(int))
    assert crops.mean_bytes() == pytest.approx(np.minimum(places, _L).mean())
    assert make([101] * 13).mean_bytes() == _L


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seq_len": 0}, "seq_len must be at least 1, got 0"),
        ({"documents": -1}, "documents must be at least 0, got -1"),
        ({"seq_len": 102}, r"seq_len 102 is longer than the whole text of 101 bytes"),
    ],
)
def test_settings_are_checked(make, fields, message):
    with pytest.raises(ValueError, match=message):
        make([101], **fields)
