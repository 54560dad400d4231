import numpy as np
import pytest

import data
from data import text
from perceiver import tokenizer

_L = 31
_SPACES = tokenizer.encode(b" \t\n\r\v\f")


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


def test_tokenise_pads(rng):
    example = {"bytes": np.frombuffer("né".encode(), np.uint8)}
    result = text.Tokenise(5)(example, rng)
    assert result["tokens"].tolist() == [110 + 6, 0xC3 + 6, 0xA9 + 6, 0, 0]
    assert result["tokens"].dtype == np.int32
    assert result["input_mask"].tolist() == [True, True, True, False, False]


def masked(content, mask, rng, length=None):
    example = {"bytes": np.frombuffer(content, np.uint8)}
    return mask(text.Tokenise(length or len(content))(example, rng), rng)


def words_of(example):
    """Returns [(start, stop)] of words by plain Python: the slow definition."""
    space, found, start = set(_SPACES.tolist()), [], None
    ids = [*example["targets"][example["input_mask"]].tolist(), _SPACES[0]]
    for place, token in enumerate(ids):
        if token in space and start is not None:
            found.append((start, place))
            start = None
        elif token not in space and start is None:
            start = place
    return found


def test_whole_words_only_at_the_stated_rate(rng):
    content = rng.choice(list(b"abcdefg(),.=\xc3\xa9  \n\t\r\v\f"), 4001).astype(np.uint8).tobytes()
    hidden = words = 0
    for _ in range(20):
        example = masked(content, text.WholeWordMask(0.15), rng, length=4099)
        chosen = [example["target_mask"][slice(*word)] for word in words_of(example)]
        assert all(part.all() or not part.any() for part in chosen)
        assert sum(part.sum() for part in chosen) == example["target_mask"].sum()  # nothing else
        hidden += sum(part.all() for part in chosen)
        words += len(chosen)
    assert abs(hidden / words - 0.15) < 4 * (0.15 * 0.85 / words) ** 0.5


@pytest.mark.parametrize("mask", [text.WholeWordMask(0.4), text.RandomByteMask(0.4)])
def test_masked_fields_agree(rng, mask):
    content = b"the quick brown fox jumps over the lazy dog"
    example = masked(content, mask, rng, length=53)
    target_mask = example["target_mask"]
    assert target_mask.any()
    assert (example["tokens"][target_mask] == tokenizer.MASK).all()
    np.testing.assert_array_equal(example["tokens"][~target_mask], example["targets"][~target_mask])
    assert tokenizer.decode(example["targets"]) == content.decode()
    assert not (target_mask & ~example["input_mask"]).any()  # never padding


def test_random_bytes_at_the_stated_rate(rng):
    example = masked(b" ab" * 3001, text.RandomByteMask(0.3), rng, length=9007)
    rate = example["target_mask"][:9003].mean()
    assert abs(rate - 0.3) < 4 * (0.3 * 0.7 / 9003) ** 0.5
    assert example["target_mask"][:9003:3].any()  # white space too


@pytest.mark.parametrize("content", [b" \n ", b""])
def test_nothing_to_mask_is_no_error(rng, content):
    example = masked(content, text.WholeWordMask(1.0), rng, length=5)
    assert not example["target_mask"].any()
    np.testing.assert_array_equal(example["tokens"], example["targets"])


def test_everything_masked(rng):
    example = masked(b"ab cd", text.WholeWordMask(1.0), rng)
    assert example["target_mask"].tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("mask", [text.WholeWordMask, text.RandomByteMask])
@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_bad_rate(mask, rate):
    with pytest.raises(ValueError, match=r"data\.mask_rate must be in \(0, 1\]"):
        mask(rate)


def test_unknown_masking(make_config, stream):
    with pytest.raises(ValueError, match=r"data\.masking 'span' is unknown"):
        text.masked_lm(stream, make_config(masking="span"), seed=0, train=True)


def test_hidden_bytes():
    assert text.hidden_bytes("byte").all()
    assert np.flatnonzero(~text.hidden_bytes("word")).tolist() == sorted(b" \t\n\r\v\f")


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
        "mask": (np.bool_, (3,)),
    }


def test_evaluations_see_the_same_masks(make_config):
    config = make_config(source="stdlib_text", seq_len=2048)
    batches = data.load(config, "validation", batch_size=128, seed=0, train=False)
    passes = [[batch["tokens"] for batch in batches] for _ in range(2)]
    batches.close()
    np.testing.assert_array_equal(np.stack(passes[0]), np.stack(passes[1]))
    assert len(passes[0]) == batches.num_batches > 1
