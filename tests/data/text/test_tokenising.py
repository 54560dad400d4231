"""Bytes to tokens: words and characters by Python's own strings, and what an edge cuts."""

# ruff: noqa: RUF001 - other scripts look alike to ruff
import numpy as np
import pytest

from data.text import tokenising
from perceiver.text import tokenizer

TEXT = "né  plain\twords, 日本語の文章。\nمرحبا بالعالم 😀👍🏽 ende"


def bytes_of(content):
    return np.frombuffer(content.encode() if isinstance(content, str) else content, np.uint8)


def tokenised(content, seq_len, rng):
    return tokenising.Tokenise(seq_len)({"bytes": bytes_of(content)}, rng)


def test_tokenise_pads(rng):
    result = tokenised("né", 5, rng)
    assert result["tokens"].tolist() == [110 + 6, 0xC3 + 6, 0xA9 + 6, 0, 0]
    assert result["tokens"].dtype == np.int32
    assert result["input_mask"].tolist() == [True, True, True, False, False]
    assert result["word"].tolist() == [1, 1, 1, 0, 0]
    assert result["character"].tolist() == [1, 2, 2, 0, 0]


def test_words_and_characters_are_those_of_the_text(rng):
    found = tokenised(TEXT, 101, rng)
    for name, parts in (("word", TEXT.split()), ("character", list(TEXT))):
        content = [tokenizer.decode(found["tokens"][found[name] == i + 1]) for i in range(99)]
        assert [part for part in content if part] == parts, name


@pytest.mark.parametrize("start", range(13))
@pytest.mark.parametrize("length", [1, 2, 3, 5, 7, 11, 53])
def test_a_cut_character_is_in_no_word_and_no_character(rng, start, length):
    content = "a日é😀".encode()[:10] * 7
    window = content[start : start + length]
    found = tokenised(window, length, rng)
    starts, place = [], 0  # of the whole characters
    for character in content.decode():
        size = len(character.encode())
        if start <= place and place + size <= start + length:
            starts += [True] * size
        elif start < place + size and place < start + length:
            starts += [False] * (min(place + size, start + length) - max(place, start))
        place += size
    assert (found["character"] > 0).tolist() == starts
    assert (found["word"] > 0).tolist() == starts
    assert found["input_mask"].all()  # the model sees the rest


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", (0, 0)),
        (b"abc", (0, 0)),
        (b"\x80\x80\x80\x80a", (3, 0)),  # no character has four: the last is broken, not cut
        (b"\x80", (1, 0)),
        (b"a\xff", (0, 1)),
        (b"a\xc3", (0, 1)),
        (b"a\xe6\x97", (0, 2)),
        (b"a\xe6\x97\xa5", (0, 0)),
        (b"a\xf0\x9f\x98", (0, 3)),
        (b"\x98\xf0\x9f", (1, 2)),
        (b"a\x80\x80", (0, 0)),  # broken within, no edge's doing
    ],
)
def test_cut(content, expected):
    assert tokenising.cut(bytes_of(content)) == expected


def test_hidden_bytes():
    assert tokenising.hidden_bytes("byte").all()
    assert tokenising.hidden_bytes("span").all()
    assert np.flatnonzero(~tokenising.hidden_bytes("word")).tolist() == sorted(b" \t\n\r\v\f")
