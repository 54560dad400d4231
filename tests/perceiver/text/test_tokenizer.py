import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver.text import tokenizer


@given(st.text())
def test_decode_inverts_encode(text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == text


@given(st.binary())
def test_an_id_is_a_byte_plus_six(data):
    np.testing.assert_array_equal(tokenizer.encode(data), [byte + 6 for byte in data])


def test_the_vocabulary_is_the_released_models():
    assert tokenizer.VOCABULARY == 262
    specials = "PAD", "BOS", "EOS", "MASK", "CLS", "SEP"
    assert [getattr(tokenizer, name) for name in specials] == [0, 1, 2, 3, 4, 5]
    assert tokenizer.encode(b"\x00\xff").tolist() == [6, 261]


def test_specials_are_left_out_and_broken_utf8_is_shown():
    ids = [tokenizer.BOS, *tokenizer.encode("né"), tokenizer.MASK, tokenizer.PAD]
    assert tokenizer.decode(ids) == "né"
    assert tokenizer.decode(tokenizer.encode(b"a\xffb")) == "a\N{REPLACEMENT CHARACTER}b"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("bad", [-1, 262, 2**20])
def test_ids_out_of_range_are_named_with_their_place(bad):
    ids = np.array([[7, 8, 9], [7, bad, bad + 1]])
    with pytest.raises(ValueError, match=rf"token {bad} at \(1, 1\) is outside 0\.\.261"):
        tokenizer.check_ids(ids)
    with pytest.raises(ValueError, match=rf"token {bad} at \(4,\)"):
        tokenizer.decode(ids.ravel())


def test_the_vocabulary_checked_is_the_models():
    tokenizer.check_ids(np.array([0, 30]), vocabulary=31)
    with pytest.raises(ValueError, match=r"token 31 at \(1,\) is outside 0\.\.30"):
        tokenizer.check_ids(np.array([0, 31]), vocabulary=31)
