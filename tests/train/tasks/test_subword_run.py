"""A masked language model of subwords, from its text to its use."""

import contextlib
import io

import numpy as np
import pytest

import perceiver
from configs import masked_lm
from data.prepare.text import subwords as training
from data.prepare.text import text
from data.prepare.text.pieces import Reading
from data.text.stdlib_text import read
from perceiver.text.coders import coder
from perceiver.text.subwords import Subwords
from train import loop

pytest.importorskip("sentencepiece")

VOCABULARY = 400
TEXT = "import os\nfor name in names: print(name)  # é"


@pytest.fixture(scope="module")
def told_and_model(tmp_path_factory):
    """What the run said, and its model, the tokeniser's first file being gone."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "some.txt").write_bytes(read("validation")[:60_000])
    reading = Reading(documents="line")
    text.prepare([str(folder / "some.txt")], folder, "some", reading, eval_share=0.1)
    original = folder / "subwords.model"
    lines = (folder / "some.txt").read_bytes().splitlines(keepends=True)
    original.write_bytes(training.train(lines, vocabulary=VOCABULARY))
    config = masked_lm.get_config("embedded,smoke")
    config.data.update(source="text:some", data_dir=str(folder), tokenizer=str(original))
    config.model.vocabulary = VOCABULARY
    config.placement = "single"
    with contextlib.redirect_stdout(io.StringIO()) as told:
        loop.run(config, folder / "run")
    original.unlink()
    return told.getvalue(), perceiver.load(folder / "run")


def test_completions_are_said_at_an_evaluation(told_and_model):
    told, _ = told_and_model
    after = told[told.index("validation:") :].splitlines()[1]
    assert after.count("{") > 0


def test_marks_and_spans_hide_subwords(told_and_model):
    _, model = told_and_model
    pieces = Subwords(model.usage["file"])
    ids = pieces.encode(TEXT)
    ends = np.cumsum(pieces.sizes[ids])
    hidden = 3  # the piece
    filled = model.fill_mask(TEXT, spans=[(int(ends[hidden]) - 1, int(ends[hidden]))])
    (span,) = filled.spans
    assert (span.start, span.stop) == (hidden, hidden + 1)
    content = TEXT.encode()
    before, after = content[: ends[hidden - 1]].decode(), content[ends[hidden] :].decode()
    # What is guessed depends on the last bit: "x" and " x" are written alike, a byte is no text.
    guesses = [
        np.array([i])
        for i in range(model.spec.vocabulary)
        if coder(model.usage["file"]).written(i) == span.candidates[0][0][0]
    ]
    texts = {pieces.decode(np.concatenate([ids[:hidden], i, ids[hidden + 1 :]])) for i in guesses}
    assert filled.text in texts
    assert span.text in {pieces.decode(i) for i in guesses}
    marked = model.fill_mask(f"{before}[MASK]{after}")
    if (pieces.encode(before).tolist(), pieces.encode(after).tolist()) == (
        ids[:hidden].tolist(),
        ids[hidden + 1 :].tolist(),
    ):
        assert marked == filled
    assert [len(s.candidates) for s in model.fill_mask("a [MASK:3] b").spans] == [3]


def test_texts_are_embedded_and_too_long_ones_are_named(told_and_model):
    _, model = told_and_model
    assert np.isfinite(model.embed(TEXT)).all()
    with pytest.raises(ValueError, match=r"text 0 has \d+ subwords, but the model reads 1 to 64"):
        model.embed("0123456789" * 20)


def test_a_saved_model_takes_its_tokeniser_along(told_and_model, tmp_path):
    _, model = told_and_model
    model.save(tmp_path / "copy")
    moved = (tmp_path / "copy").rename(tmp_path / "moved")
    again = perceiver.load(moved)
    assert again.usage["file"] == str(moved / "tokenizer.model")
    assert again.fill_mask("a [MASK] b") == model.fill_mask("a [MASK] b")
