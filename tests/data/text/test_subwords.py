"""Subwords: every text comes back, special ids are ours, and what each piece is."""

import numpy as np
import pytest

from data.prepare.text import subwords as training
from data.text import masking, tokenising
from perceiver.text import tokenizer
from perceiver.text.subwords import Subwords

pytest.importorskip("sentencepiece")

TRAINED = [
    b"the quick brown fox jumps over the lazy dog\n    and sleeps there, said the fox\n\n",
    "naïve café, 日本語 日本\ttext in 1234 parts\r\n".encode(),
    b"foxes and dogs, quick quick quick; over there, there\n",
] * 3
VOCABULARY = 311
TEXTS = (
    "the quick foxes\n    sleep\tthere\r\n",
    "",
    " ",
    "  a  b   ",
    "日本語 text, 한국어 😀👍🏽",
    "مرحبا بالعالم",
    "nul \0 and [MASK] and <s> <unk> <0x41>",
)


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("subwords") / "m.model"
    path.write_bytes(training.train(TRAINED, vocabulary=VOCABULARY))
    return path


@pytest.fixture(scope="session")
def subwords(path):
    return Subwords(path)


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_comes_back(subwords, text):
    ids = subwords.encode(text)
    assert ids.dtype == np.int32
    assert not len(ids) or tokenizer.OFFSET <= ids.min() <= ids.max() < VOCABULARY
    assert subwords.decode(ids) == text
    assert subwords.sizes[ids].sum() == len(text.encode())  # pieces are the text's own bytes
    marked = np.concatenate([[tokenizer.CLS], ids, [tokenizer.MASK, tokenizer.PAD]])
    assert subwords.decode(marked) == text


def test_the_vocabulary_is_what_was_asked_for(subwords):
    assert subwords.vocabulary == VOCABULARY
    with pytest.raises(ValueError, match=rf"token {VOCABULARY} at \(0,\)"):
        subwords.decode([VOCABULARY])
    assert subwords.separates[: tokenizer.OFFSET].all()
    assert subwords.continues.sum() == 64
    found = subwords.encode("quick fox")
    assert subwords.begins[found].sum() == 1


def example(path, content, seq_len):
    content = np.frombuffer(content, np.uint8)
    return tokenising.TokenisePieces(str(path), seq_len)({"bytes": content}, None)


def test_words_of_subwords_are_those_of_the_text(path, subwords):
    text = "the quick fox,\n    said 日本 ünd 😀 there  "
    found = example(path, text.encode(), 97)
    words = [subwords.decode(found["tokens"][found["word"] == i + 1]) for i in range(97)]
    assert [word.strip() for word in words if word] == text.split()
    assert found["input_mask"].sum() == len(subwords.encode(text))
    assert (found["character"][found["input_mask"]] > 0).all()
    assert not found["character"][~found["input_mask"]].any()


def test_whole_words_of_subwords_are_hidden(path, rng):
    found = example(path, b" ".join(TRAINED), 401)
    hidden, words = 0, int(found["word"].max())
    for _ in range(100):
        masked = masking.WholeWordMask(0.15)(found, rng)
        share = np.bincount(found["word"], masked["target_mask"])[1:]
        share /= np.bincount(found["word"])[1:]
        assert np.isin(share, (0, 1)).all()
        hidden += share.sum()
    spread = (0.15 * 0.85 / (100 * words)) ** 0.5
    assert abs(hidden / (100 * words) - 0.15) < 4 * spread


@pytest.mark.parametrize("seq_len", range(1, 9))
def test_a_character_of_bytes_that_the_window_cuts_does_not_count(path, subwords, seq_len):
    content = "a😀b😀".encode()  # the emoji are no pieces, but four bytes each
    ids = subwords.encode(content)
    assert subwords.continues[ids].sum() == 6
    found = example(path, content, seq_len)
    starts = np.flatnonzero(~subwords.continues[ids])
    ends = np.append(starts[1:], len(ids))
    counts = np.concatenate(
        [np.full(e - s, e <= seq_len) for s, e in zip(starts, ends, strict=True)]
    )
    np.testing.assert_array_equal(found["character"] > 0, counts[:seq_len])
    np.testing.assert_array_equal(found["tokens"], ids[:seq_len])


def test_characters_cut_by_the_window_of_bytes_are_left_out(path, subwords):
    content = "é fox é".encode()
    found = example(path, content[1:-1], 31)
    assert subwords.decode(found["tokens"]) == " fox "


def test_what_is_wrong_is_named(tmp_path):
    broken = tmp_path / "b.model"
    broken.write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"b\.model is not a SentencePiece model"):
        Subwords(broken)
    with pytest.raises(ValueError, match="--vocabulary 200 must be larger than 263"):
        training.train(TRAINED, vocabulary=200)
    with pytest.raises(ValueError, match="cannot train 9999 subwords on this text"):
        training.train(TRAINED, vocabulary=9999)
