import numpy as np
import pytest

import data
from data import transforms
from data.text import windows as text

_L = 31


@pytest.fixture
def stream(rng):
    """Bytes that occur once each in their window, so that a place is recognised."""
    return rng.permutation(241).astype(np.uint8)


def windows(stream, epoch, *, train, seed=0):
    source = text.Windows(stream, _L, seed, train)
    return [source.example(index, epoch)["bytes"] for index in range(len(source))]


@pytest.mark.parametrize("size", [31, 62, 100, 241])
def test_training_windows_are_disjoint_pieces_of_the_ring(stream, size):
    stream = stream[:size]
    starts = set()
    for epoch in range(5):
        cut = windows(stream, epoch, train=True)
        assert len(cut) == size // _L
        taken = np.concatenate(cut)
        assert len(set(taken.tolist())) == len(taken)  # no byte twice in an epoch
        start = int(np.flatnonzero(stream == taken[0])[0])
        starts.add(start)
        np.testing.assert_array_equal(taken, np.roll(stream, -start)[: len(taken)])
    assert len(starts) > 1


def test_offsets_depend_on_the_seed(stream):
    a, b = (np.stack(windows(stream, 0, train=True, seed=seed)) for seed in (0, 1))
    assert (a != b).any()


@pytest.mark.parametrize("size", [1, 30, 31, 32, 241])
def test_validation_windows_cover_every_byte_in_order(stream, size):
    for epoch in (0, 3):
        cut = windows(stream[:size], epoch, train=False)
        np.testing.assert_array_equal(np.concatenate(cut), stream[:size])
        assert {len(window) for window in cut[:-1]} <= {_L}


def test_windows_name_what_is_wrong(stream):
    with pytest.raises(ValueError, match=r"seq_len 31 is longer than the whole text of 30 bytes"):
        text.Windows(stream[:30], _L, 0, train=True)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        text.Windows(stream, 0, 0, train=False)


def test_an_unknown_masking_is_refused(make_config, stream):
    with pytest.raises(ValueError, match=r"data\.masking 'sentence' is unknown"):
        text.masked_lm(stream, make_config(masking="sentence"), seed=0, train=True)


def test_further_fields_of_a_source_are_kept(make_config, rng):
    class Source:
        def __len__(self):
            return 1

        def example(self, index, epoch):
            return {"bytes": np.frombuffer(b"some text", np.uint8), "source": 3, "other": 5}

    found = text.dataset(Source(), make_config(), also=("source",))
    example = transforms.apply(found.transforms, found.source.example(0, 0), rng)
    assert example.keys() == {*text.FIELDS, "source"}
    assert example["source"] == 3


def test_batches_fit_the_contract(make_config):
    config = make_config(source="stdlib_text", seq_len=127)
    batches = data.load(config, "train", batch_size=3, seed=0, train=True)
    batch = next(batches)
    batches.close()
    kinds = {name: (x.dtype, x.shape) for name, x in batch.items()}
    assert kinds == {
        "tokens": (np.int32, (3, 127)),
        "targets": (np.int32, (3, 127)),
        "input_mask": (np.bool_, (3, 127)),
        "target_mask": (np.bool_, (3, 127)),
        "source": (np.int32, (3,)),
        "mask": (np.bool_, (3,)),
    }


def test_evaluations_see_the_same_masks(make_config):
    config = make_config(source="stdlib_text", seq_len=2048)
    batches = data.load(config, "validation", batch_size=128, seed=0, train=False)
    passes = [[batch["tokens"] for batch in batches] for _ in range(2)]
    batches.close()
    np.testing.assert_array_equal(np.stack(passes[0]), np.stack(passes[1]))
    assert len(passes[0]) == batches.num_batches > 1
