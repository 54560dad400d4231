"""Maskings: exact rates on a million bytes of any script, whole units only, never on padding."""

# ruff: noqa: RUF001 - other scripts look alike to ruff
import functools

import numpy as np
import pytest

from data.text import masking, tokenising
from perceiver.text import tokenizer

SCRIPTS = {
    "english": "The quick (brown) fox, 3.14 times; jumps\tover\n\nlazy dogs. ",
    "chinese": "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "arabic": "مرحبا بالعالم، كيف حالك؟ ",
    "emoji": "😀 👩‍👩‍👧👍🏽 ❤️ ok 🇺🇳 ",
    "mixed": "naïve 日本語 text\r\nПривет мир 한국어 문장 ",
}
WINDOW = 2003


@functools.cache
def windows(script, size=1_000_000):
    """Windows of a script's words again and again, cut anywhere, the last part padding."""
    words = SCRIPTS[script].encode()
    text = (words * (size // len(words) + 1))[:size]
    tokenise, step = tokenising.Tokenise(WINDOW), WINDOW - 13
    cut = (np.frombuffer(text[i : i + step], np.uint8) for i in range(0, size, step))
    return [tokenise({"bytes": content}, None) for content in cut]


def masked(content, mask, rng, length=None):
    content = np.frombuffer(content, np.uint8)
    return mask(tokenising.Tokenise(length or len(content))({"bytes": content}, rng), rng)


def assert_rate(hidden, sizes, rate):
    """Of independent units of these sizes: hidden tokens within four standard deviations."""
    sizes = np.asarray(sizes, np.float64)
    spread = np.sqrt(rate * (1 - rate) * np.square(sizes).sum())
    assert abs(hidden - rate * sizes.sum()) < 4 * spread


@pytest.mark.parametrize("script", SCRIPTS)
def test_whole_words_at_the_stated_rate_over_a_million_bytes(rng, script):
    hidden, chosen, sizes = 0, 0, []
    for example in windows(script):
        found = masking.WholeWordMask(0.15)(example, rng)
        word, target = found["word"], found["target_mask"]
        assert not target[word == 0].any()  # padding, white space, cut characters
        size = np.bincount(word)[1:]
        parts = np.bincount(word, weights=target)[1:]
        assert np.isin(parts[size > 0] / size[size > 0], (0, 1)).all()  # whole words
        hidden, chosen = hidden + target.sum(), chosen + (parts > 0).sum()
        sizes += size.tolist()
    assert_rate(hidden, sizes, 0.15)
    assert_rate(chosen, [size > 0 for size in sizes], 0.15)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("mask", [masking.RandomByteMask(0.15), masking.SpanMask(0.15, 7)])
def test_bytes_and_spans_at_the_stated_rate_in_any_script(rng, script, mask):
    hidden = total = 0
    for example in windows(script):
        found = mask(example, rng)
        eligible = found["character"] > 0
        assert not (found["target_mask"] & ~eligible).any()
        hidden, total = hidden + found["target_mask"].sum(), total + eligible.sum()
    # Neighbours in a span are hidden together: the variance of a sum over a chain of geometric
    # stretches is that of independent ones times (2 L (1 - rate) - 1), of characters <= 4 bytes.
    stretch = 1 if isinstance(mask, masking.RandomByteMask) else 4 * 2 * 7 * 0.85
    spread = np.sqrt(0.15 * 0.85 * stretch / total)
    assert abs(hidden / total - 0.15) < 4 * spread
    assert total > 990_000


def test_where_no_blanks_are_set_a_word_is_a_whole_window(rng):
    shares = []
    for example in windows("chinese"):
        found = masking.WholeWordMask(0.15)(example, rng)
        shares.append(found["target_mask"].sum() / (found["character"] > 0).sum())
    assert set(shares) == {0, 1}
    assert abs(np.mean(shares) - 0.15) < 4 * np.sqrt(0.15 * 0.85 / len(shares))


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_spans_are_geometric_and_every_place_has_the_same_rate(rng, rate):
    mask, places = masking.SpanMask(rate, 5.0), 41
    drawn = np.stack([mask.draw(places, rng) for _ in range(5_000)])  # [20000, 41]
    np.testing.assert_allclose(drawn.mean(axis=0), rate, atol=4 * np.sqrt(rate / 5_000))
    after_hidden = drawn[:, 1:][drawn[:, :-1]]  # whether a span goes on
    assert after_hidden.mean() == pytest.approx(1 - 1 / 5, abs=0.01)
    starts = drawn[:, 1:][~drawn[:, :-1]]
    assert starts.mean() == pytest.approx(rate / (5 * (1 - rate)), abs=0.01)
    long = mask.draw(200_000, rng)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], long, [0]])))
    lengths = edges[1::2] - edges[::2]
    assert lengths.mean() == pytest.approx(5, rel=0.03)
    assert (lengths > 5).mean() == pytest.approx((1 - 1 / 5) ** 5, rel=0.05)  # geometric


def test_spans_hide_whole_characters(rng):
    content = SCRIPTS["chinese"].encode() + SCRIPTS["emoji"].encode()
    for _ in range(50):
        example = masked(content, masking.SpanMask(0.3, 2.0), rng)
        target, character = example["target_mask"], example["character"]
        inside = character[1:] == character[:-1]
        assert (target[1:] == target[:-1])[inside].all()


@pytest.mark.parametrize(
    "mask", [masking.WholeWordMask(0.4), masking.RandomByteMask(0.4), masking.SpanMask(0.4, 3)]
)
def test_masked_fields_agree(rng, mask):
    content = b"the quick brown fox jumps over the lazy dog"
    example = masked(content, mask, rng, length=53)
    target_mask = example["target_mask"]
    assert target_mask.any()
    assert (example["tokens"][target_mask] == tokenizer.MASK).all()
    np.testing.assert_array_equal(example["tokens"][~target_mask], example["targets"][~target_mask])
    assert tokenizer.decode(example["targets"]) == content.decode()
    assert not (target_mask & ~example["input_mask"]).any()  # never padding


@pytest.mark.parametrize("content", [b" \n ", b""])
def test_nothing_to_mask_is_no_error(rng, content):
    example = masked(content, masking.WholeWordMask(1.0), rng, length=5)
    assert not example["target_mask"].any()
    np.testing.assert_array_equal(example["tokens"], example["targets"])
    assert not masked(b"", masking.SpanMask(0.5, 3), rng, length=5)["target_mask"].any()


def test_everything_masked(rng):
    example = masked(b"ab cd", masking.WholeWordMask(1.0), rng)
    assert example["target_mask"].tolist() == [True, True, False, True, True]
    assert masked(b"ab cd", masking.SpanMask(1.0, 3), rng)["target_mask"].all()


@pytest.mark.parametrize("name", masking.MASKINGS)
@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_bad_rate(name, rate):
    with pytest.raises(ValueError, match=r"data\.mask_rate must be in \(0, 1\]"):
        masking.make(name, rate, 20.0)


def test_bad_spans():
    with pytest.raises(ValueError, match=r"data\.span_length must be at least 1 character, got 0"):
        masking.SpanMask(0.15, 0.5)
    with pytest.raises(ValueError, match=r"mask_rate 0\.9 with data\.span_length 3"):
        masking.SpanMask(0.9, 3.0)
