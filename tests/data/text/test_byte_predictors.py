import math

import numpy as np
import pytest

import data
from data.text import byte_predictors, masking, stdlib_text, tokenising
from perceiver.text import tokenizer

_ALPHA = 0.5


def batch_of(content, hidden, length):
    """A batch of one window, with the bytes at the places `hidden` masked."""
    real = np.arange(length) < len(content)
    targets = np.zeros(length, np.int32)
    targets[: len(content)] = tokenizer.encode(content)
    target_mask = np.zeros(length, bool)
    target_mask[list(hidden)] = True
    fields = {"targets": targets, "input_mask": real, "target_mask": target_mask}
    return {name: value[None] for name, value in fields.items()}


def stream(content):
    return np.frombuffer(content, np.uint8)


def test_fit_by_hand():
    predictors = byte_predictors.fit(stream(b"aab"), alpha=_ALPHA)
    a, b = b"ab"
    # Bytes: a 2, b 1. Pairs: aa 1, ab 1. alpha is added to each of the 256 counts.
    assert predictors.unigram[a] == pytest.approx(2.5 / (3 + 128))
    assert predictors.unigram[0] == pytest.approx(0.5 / (3 + 128))
    assert predictors.bigram[a, b] == pytest.approx(1.5 / (2 + 128))
    assert predictors.bigram[b, a] == pytest.approx(1 / 256)  # never seen: uniform
    np.testing.assert_allclose(predictors.bigram.sum(axis=1), 1)


def test_fit_knows_what_is_never_hidden():
    predictors = byte_predictors.fit(
        stream(b"a b"), hidden=tokenising.hidden_bytes("word"), alpha=_ALPHA
    )
    assert predictors.unigram[ord("a")] == pytest.approx(1.5 / (2 + 250 * _ALPHA))
    assert predictors.unigram[ord(" ")] == 0
    assert predictors.unigram.sum() == pytest.approx(1)
    assert not predictors.bigram[:, ord(" ")].any()


@pytest.mark.parametrize("size", [1, 2, 11, 12, 13, 101])
def test_counting_in_chunks_changes_nothing(rng, monkeypatch, size):
    content = rng.integers(5, size=size).astype(np.uint8)
    whole = byte_predictors.fit(content)
    monkeypatch.setattr(byte_predictors, "_CHUNK", 11)
    chunked = byte_predictors.fit(content)
    np.testing.assert_array_equal(chunked.unigram, whole.unigram)
    np.testing.assert_array_equal(chunked.bigram, whole.bigram)


def test_score_by_hand():
    predictors = byte_predictors.fit(stream(b"abcabcabd"), alpha=_ALPHA)
    p, u = predictors.bigram, predictors.unigram
    a, b, c = b"abc"
    # Hidden: c one place after b, b two after the visible a; a at the start has no context.
    batches = [batch_of(b"abc", [2], 5), batch_of(b"acb", [1, 2], 3), batch_of(b"ad", [0], 2)]
    result = byte_predictors.score(predictors, batches)
    unigram = -sum(math.log2(u[x]) for x in (c, c, b, a))
    two_steps = sum(p[a, x] * p[x, b] for x in range(256))
    bigram = -math.log2(p[b, c]) - math.log2(p[a, c]) - math.log2(two_steps) - math.log2(u[a])
    assert result["unigram"] == (pytest.approx(unigram), 4)
    assert result["bigram"] == (pytest.approx(bigram), 4)


def test_hidden_steps_pass_through_bytes_that_may_be_hidden():
    hidden = tokenising.hidden_bytes("word")
    predictors = byte_predictors.fit(stream(b"ab ba ab"), hidden=hidden, alpha=_ALPHA)
    raw = byte_predictors.fit(stream(b"ab ba ab"), alpha=_ALPHA).bigram
    a, b = b"ab"
    inside = np.flatnonzero(hidden)
    path = {y: sum(raw[a, x] * raw[x, y] for x in inside) for y in inside}
    result = byte_predictors.score(predictors, [batch_of(b"aab", [1, 2], 3)])
    first = raw[a, a] / raw[a, inside].sum()
    second = path[b] / sum(path.values())
    assert result["bigram"] == (pytest.approx(-math.log2(first) - math.log2(second)), 2)


def test_sums_over_batches_add_up(rng):
    content = rng.integers(97, 101, 997).astype(np.uint8)
    predictors = byte_predictors.fit(content)
    batches = [batch_of(bytes(content[i : i + 31]), [3, 4, 17], 37) for i in range(5)]
    whole = byte_predictors.score(predictors, batches)
    parts = [byte_predictors.score(predictors, [batch]) for batch in batches]
    for name, (bits, count) in whole.items():
        assert bits == pytest.approx(sum(part[name][0] for part in parts))
        assert count == sum(part[name][1] for part in parts) == 15


def test_nothing_masked_scores_nothing():
    predictors = byte_predictors.fit(stream(b"ab"))
    empty = {"unigram": (0.0, 0), "bigram": (0.0, 0)}
    assert byte_predictors.score(predictors, [batch_of(b"ab", [], 3)]) == empty
    assert byte_predictors.score(predictors, []) == empty


def test_bad_arguments():
    with pytest.raises(ValueError, match="alpha > 0 and a non-empty text, got alpha 0, 2 bytes"):
        byte_predictors.fit(stream(b"ab"), alpha=0)
    with pytest.raises(ValueError, match="0 bytes"):
        byte_predictors.fit(stream(b""))


@pytest.mark.parametrize("name", masking.MASKINGS)
def test_context_helps_on_real_text(make_config, name):
    config = make_config(source="stdlib_text", seq_len=512, masking=name)
    hidden = tokenising.hidden_bytes(name)
    predictors = byte_predictors.fit(stdlib_text.read("train"), hidden=hidden)
    batches = data.load(config, "validation", batch_size=101, seed=0, train=False)
    scores = byte_predictors.score(predictors, (next(batches) for _ in range(3)))
    batches.close()
    bits = {name: total / count for name, (total, count) in scores.items()}
    assert 3 < bits["bigram"] < bits["unigram"] < 6
