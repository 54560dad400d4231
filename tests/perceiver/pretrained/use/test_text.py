"""Masked language models in use: marks, spans, lengths, batches."""

import jax
import numpy as np
import pytest

from perceiver.kinds import specs
from perceiver.pretrained.runner import Runner
from perceiver.pretrained.use import text
from perceiver.text import tokenizer

BYTES = {"tokenizer": "bytes"}


@pytest.fixture(scope="module")
def run(draw_saved):
    spec = {
        "kind": "masked_lm",
        "max_length": 150,
        "embedding_channels": 6,
        "latents": 5,
        "latent_channels": 8,
        "layers": 1,
        "cross_heads": 2,
        "cross_qk_channels": 4,
        "cross_v_channels": 8,
        "self_heads": 2,
        "self_qk_channels": 4,
        "query_heads": 2,
        "query_qk_channels": 4,
    }
    saved = draw_saved(spec)
    return Runner(saved.model, saved.params, saved.state, batch_size=4)


def logits(run, ids):
    """Returns what the model itself gives for one row of ids at its full length."""
    tokens = np.zeros((1, 150), np.int32)
    tokens[0, : len(ids)] = ids
    inputs = {"tokens": tokens, "input_mask": np.arange(150)[None] < len(ids)}
    return np.asarray(jax.jit(run.model.apply)(run.params, run.state, None, inputs)[0])[0]


def test_marks_become_mask_tokens_and_are_filled_with_the_best_bytes(run):
    (filled,) = text.fill_mask(run, ["one [MASK]wo [MASK:3]ee"], BYTES)
    ids = np.concatenate(
        [
            tokenizer.encode("one "),
            [tokenizer.MASK],
            tokenizer.encode("wo "),
            [tokenizer.MASK] * 3,
            tokenizer.encode("ee"),
        ]
    )
    best = logits(run, ids)[:, tokenizer.OFFSET :].argmax(axis=-1) + tokenizer.OFFSET
    expected = np.where(ids == tokenizer.MASK, best[: len(ids)], ids)
    assert filled.text == tokenizer.decode(expected)
    assert [(s.start, s.stop) for s in filled.spans] == [(4, 5), (8, 11)]
    assert filled.spans[1].text == tokenizer.decode(expected[8:11])


def test_probabilities_are_those_of_bytes_and_multiply_over_a_span(run):
    (filled,) = text.fill_mask(run, ["ab[MASK:2]"], BYTES, top_k=256)
    ids = np.array([*tokenizer.encode("ab"), tokenizer.MASK, tokenizer.MASK])
    scores = logits(run, ids)[2:4, tokenizer.OFFSET :]
    expected = np.asarray(jax.nn.softmax(scores, axis=-1))
    (span,) = filled.spans
    assert span.probability == pytest.approx(expected.max(axis=-1).prod(), rel=1e-4)
    for candidates, row in zip(span.candidates, expected, strict=True):
        values = [p for _, p in candidates]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1)
        assert values[0] == pytest.approx(row.max(), rel=1e-4)


def test_spans_hide_what_is_there(run):
    (by_mark,) = text.fill_mask(run, ["a[MASK:2]d"], BYTES)
    (by_span,) = text.fill_mask(run, ["aXYd"], BYTES, spans=[[(1, 3)]])
    assert by_span.text == by_mark.text
    assert by_span.spans == by_mark.spans


def test_marks_side_by_side_are_one_span(run):
    (filled,) = text.fill_mask(run, ["[MASK][MASK:2][MASK]"], BYTES)
    assert [(s.start, s.stop) for s in filled.spans] == [(0, 4)]


def test_texts_of_any_length_and_number_answer_as_if_alone(run):
    texts = [f"{'é' * i}[MASK]{'x' * 7 * i}" for i in range(1, 8)]
    together = text.fill_mask(run, texts, BYTES)
    for one, filled in zip(texts, together, strict=True):
        (alone,) = text.fill_mask(run, [one], BYTES)
        assert alone.text == filled.text
        assert alone.spans[0].probability == pytest.approx(filled.spans[0].probability, rel=1e-4)


def test_lengths_are_padded_to_few_shapes():
    spec = specs.parse(
        {"kind": "masked_lm", "max_length": 2048, "latents": 1, "latent_channels": 8, "layers": 1}
        | {"cross_heads": 2, "embedding_channels": 8, "cross_qk_channels": 8}
    )

    def length(size):
        return text.prepare(spec, {}, [b"x" * size])["tokens"].shape[1]

    assert [length(n) for n in (1, 64, 65, 128, 1025, 2048)] == [64, 64, 128, 128, 2048, 2048]
    inputs = text.prepare(spec, {}, ["ab", "abcdef"])
    assert inputs["input_mask"].sum(axis=1).tolist() == [2, 6]
    assert (inputs["tokens"][0, 2:] == tokenizer.PAD).all()


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["no mark"], {}, r"nothing is masked in 'no mark'; write \[MASK\]"),
        (["[MASK:0]"], {}, r"\[MASK:0\] must mask 1 to 150 bytes"),
        (["[MASK:151]"], {}, r"\[MASK:151\] must mask 1 to 150 bytes"),
        (["abc"], {"spans": [[(2, 5)]]}, r"span \(2, 5\) lies outside a text of 3 bytes"),
        (["abc"], {"spans": [[]]}, "no spans are given for 'abc'"),
        (["abc", "d"], {"spans": [[(0, 1)]]}, "1 lists of spans for 2 texts"),
        (["[MASK]"], {"top_k": 0}, "top_k must lie in 1..256, got 0"),
        ([], {}, "at least one example"),
    ],
)
def test_what_cannot_be_filled_is_said(texts, options, message, run):
    with pytest.raises(ValueError, match=message):
        text.fill_mask(run, texts, BYTES, **options)
