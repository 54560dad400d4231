"""Ids of other models' tokenisers are those of the library that reads their files."""

import numpy as np
import pytest
import tokenizers

from perceiver.text import coders, sequences

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "the", "cat", "##s", "Cat", "caf", "##é", "."]


@pytest.fixture(params=["vocab.txt", "tokenizer.json"])
def file(request, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    if request.param == "tokenizer.json":
        library = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"))
        library.enable_truncation(4)  # what a file says of lengths is the model's affair here
        library.enable_padding(length=9)
        library.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path / request.param)


def test_ids_of_texts_and_pairs_are_the_librarys(file, tmp_path):
    library = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"))
    coder = coders.coder(file)
    for texts in (["The cats."], ["unheard of", "the cat"], ["café"]):
        row = sequences.join([coder.encode(text) for text in texts], 32, coder)
        assert row.tolist() == library.encode(*texts).ids
    assert (coder.pad, coder.mask, coder.vocabulary) == (0, 4, len(WORDS))
    assert coder.decode(coder.encode("the cats .")) == "the cats."
    assert [coder.sizes[i] for i in (0, 3, 5, 7)] == [0, 0, 3, 1]


def test_what_is_too_long_keeps_its_special_tokens(file):
    coder = coders.coder(file)
    row = sequences.join([coder.encode("the cats the cats")], 5, coder)
    assert row.tolist() == [2, 5, 6, 7, 3]
    tokens, mask = sequences.pad([row[:3]], 5, coder)
    np.testing.assert_array_equal(tokens, [[2, 5, 6, 0, 0]])
    assert mask.sum() == 3


def test_case_is_kept_where_the_folder_says_so(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert coders.coder(str(tmp_path / "vocab.txt")).encode("Cat cat").tolist() == [8, 6]


def test_files_that_are_none_are_named(tmp_path):
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokeniser"):
        coders.coder(str(broken))
    with pytest.raises(FileNotFoundError, match="no such tokeniser"):
        coders.coder(str(tmp_path / "vocab.txt"))
