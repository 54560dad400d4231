"""Kinds of the bytes of Python sources, and windows around them."""

import numpy as np
import pytest

import data
from data.labelled_text import stdlib_syntax
from data.text import stdlib_text
from perceiver.text import tokenizer

SOURCE = '''# é: says
def f(a):
    """What it
    does, ü."""
    return a["ö"] + 0x1F  # ok
'''
# c comment, d documentation, k keyword, n name, 0 number, o operator, s string, . nothing
MEANT = (
    "cccccccccc.",
    "kkk.nonoo.",
    "....ddddddddddd",
    "dddddddddddddddd.",
    "....kkkkkk.nosssso.o.0000..cccc.",
)


def test_the_kind_of_each_byte():
    letters = {"c": "comment", "d": "documentation", "k": "keyword", "n": "name"}
    letters |= {"0": "number", "o": "operator", "s": "string"}
    found = stdlib_syntax.kinds_of(SOURCE.encode())
    names = [*stdlib_syntax.KINDS, None]
    written = {name: letter for letter, name in letters.items()} | {None: "."}
    shown = "".join(written[names[kind]] for kind in found)
    assert shown == "".join(MEANT)


def test_what_python_cannot_read_has_no_kinds():
    assert stdlib_syntax.kinds_of(b"x = (1,\n") is None
    assert stdlib_syntax.kinds_of(b"# coding: no-such\n") is None


def read(config, split, train):
    batches = data.load(config, split, batch_size=70, seed=0, train=train)
    batch = next(batches)
    again = next(batches)
    batches.close()
    return batch, again


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_middle_is_of_the_kind_that_the_label_says(split, make_config):
    config = make_config(source="stdlib_syntax", seq_len=97)
    batch, again = read(config, split, train=split == "train")
    assert batch["input_mask"].all()
    stream, kinds = stdlib_syntax.labelled(split)
    text = stream.tobytes()
    for row, label in zip(batch["tokens"][:30], batch["label"][:30], strict=True):
        window = (row - tokenizer.OFFSET).astype(np.uint8).tobytes()
        starts, start = [], text.find(window)
        while start >= 0:
            starts.append(start)
            start = text.find(window, start + 1)
        assert label in {kinds[start + 97 // 2] for start in starts}
    assert not np.array_equal(batch["tokens"], again["tokens"])


def test_all_kinds_are_equally_frequent_and_no_file_is_on_both_sides(make_config):
    config = make_config(source="stdlib_syntax", seq_len=97)
    facts = data.info(config)
    assert facts.labels == stdlib_syntax.KINDS
    assert facts.examples == {"train": 14_000, "validation": 1_400}
    batches = data.load(config, "validation", batch_size=200, seed=0, train=False)
    labels = np.concatenate([batch["label"][batch["mask"]] for batch in batches])
    batches.close()
    assert np.bincount(labels).tolist() == [200] * 7
    stream, _ = stdlib_syntax.labelled("validation")
    assert stream[:200].tobytes() in stdlib_text.read("validation").tobytes()
    with pytest.raises(ValueError, match=r"data\.seq_len 99999999 is too long"):
        data.load(
            make_config(source="stdlib_syntax", seq_len=99_999_999),
            "train",
            batch_size=1,
            seed=0,
            train=True,
        )


def test_only_some_files_are_labelled():
    stream, kinds = stdlib_syntax.labelled("train")
    assert len(stream) == len(kinds)
    assert len(stdlib_text.read("train")) / 40 < len(stream) < len(stdlib_text.read("train")) / 6
