"""Pairs and triplets of texts: TFDS's sets, tables, docstrings."""

import json

import numpy as np
import pytest

import data
from data.labelled_text import stdlib_docstrings
from perceiver.text import tokenizer
from tests.data import glue_sets

NLI = ("entailment", "neutral", "contradiction")


def read(config, split, train=False):
    """Returns [(texts, label)] of one pass, None for an example that is left out."""
    batches = data.load(config, split, batch_size=4, seed=0, train=train)
    found = []
    for batch in batches:
        for i in range(len(batch["mask"])):
            texts = [
                tokenizer.decode(batch[tokens][i][batch[mask][i]])
                for tokens, mask in (
                    ("tokens", "input_mask"),
                    ("tokens_b", "mask_b"),
                    ("tokens_c", "mask_c"),
                )
                if tokens in batch
            ]
            label = batch["label"][i].item() if "label" in batch else None
            found.append((*texts, label) if batch["mask"][i] else None)
    broken = batches.broken
    batches.close()
    return found, broken


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    fields = ("premise", "hypothesis")
    validation = ("validation_matched", "validation_mismatched")
    glue_sets.write(root, "nli", fields=fields, name="snli", names=NLI, without=(2, 5))
    glue_sets.write(root, "nli", fields=fields, name="multi_nli", names=NLI, validation=validation)
    glue_sets.write(root, "stsb")
    return root


def test_snli_and_multi_nli_are_one(sets, make_config):
    config = make_config(source="tfds_pairs:snli+multi_nli", data_dir=str(sets), seq_len=97)
    facts = data.info(config)
    assert (facts.labels, facts.texts) == (NLI, 2)
    assert facts.examples == {"train": 22, "validation": 33}
    found, broken = read(config, "validation")
    assert found[3] == ("validation premise 3", "validation hypothesis 3", 0)
    assert found[12] == ("validation_matched premise 1", "validation_matched hypothesis 1", 1)
    assert found[32] == (
        "validation_mismatched premise 10",
        "validation_mismatched hypothesis 10",
        1,
    )
    assert [i for i, row in enumerate(found) if row is None][:2] == [2, 5]  # then the filling
    assert list(broken.values()) == [
        f"snli, example {i}: its label -1 is not in 0..2" for i in (2, 5)
    ]
    config.eval_split = "validation_matched"
    with pytest.raises(ValueError, match=r"no split validation_matched"):
        data.info(config)


def test_scores_are_brought_to_one(sets, make_config):
    config = make_config(source="tfds_pairs:glue/stsb", data_dir=str(sets), seq_len=97)
    assert data.info(config).labels == ("score",)
    found, _ = read(config, "validation")
    assert found[10] == ("validation sentence1 10", "validation sentence2 10", 0.5)  # 2.5 of 5
    config.score_range = (0.0, 2.5)
    assert read(config, "validation")[0][4][-1] == pytest.approx(0.4)
    config.score_range = (1.0, 1.0)
    with pytest.raises(ValueError, match="lowest and the highest"):
        read(config, "validation")


def test_sets_that_are_no_pairs_or_differ_are_refused(sets, tmp_path, make_config):
    config = make_config(source="tfds_pairs:snli+glue/stsb", data_dir=str(sets))
    with pytest.raises(ValueError, match="data sets of the same form only"):
        data.info(config)
    glue_sets.write(tmp_path, "cola")
    config = make_config(source="tfds_pairs:glue/cola", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"not a pair: set data\.text_fields"):
        data.info(config)


SICK = """pair_ID\tsentence_A\tsentence_B\tentailment_label\trelatedness_score\tSemEval_set
1\tA dog runs\tA dog is running\tENTAILMENT\t5\tTRAIN
2\tA "cat\tsleeps\tNEUTRAL\t3.0\tTRAIN
3\tNobody sings\tA man sings\tCONTRADICTION\t2\tTRIAL
4\tA boy\t \tNEUTRAL\t1\tTRAIN
5\tA boy\tA girl\tNEUTRAL\tmuch\tTEST
6\tA boy eats\tA boy is eating\tENTAILMENT\t4.6\tTEST
7\tA man jumps\tA man\tNEUTRAL\t6\tTEST
"""


def sick(tmp_path, make_config, **fields):
    (tmp_path / "SICK.txt").write_text(SICK.replace('"', ""), encoding="utf-8")
    return make_config(
        source=f"pairs_rows:{tmp_path}/SICK.txt",
        text_fields=("sentence_A", "sentence_B"),
        split_field="SemEval_set",
        seq_len=31,
        **fields,
    )


def test_sick_is_read_as_its_authors_give_it(tmp_path, make_config):
    scores = {"label_field": "relatedness_score", "regression": True, "score_range": (1.0, 5.0)}
    config = sick(tmp_path, make_config, **scores)
    assert data.info(config).examples == {"train": 2, "validation": 1}
    assert read(config, "validation")[0][0] == ("Nobody sings", "A man sings", 0.25)
    config.eval_split = "TEST"
    found, broken = read(config, "validation")
    assert found[0] == ("A boy eats", "A boy is eating", pytest.approx(0.9))
    assert list(broken.values()) == [
        f"{tmp_path}/SICK.txt, line 8: its score 6 is outside data.score_range 1 to 5"
    ]
    config.eval_split = "DEV"
    with pytest.raises(ValueError, match="no row has dev in column 'SemEval_set', only train"):
        data.info(config)


def test_sick_has_classes_too(tmp_path, make_config):
    (tmp_path / "SICK.txt").write_text(SICK, encoding="utf-8")
    config = sick(tmp_path, make_config, label_field="entailment_label", eval_split="TEST")
    assert data.info(config).labels == ("ENTAILMENT", "NEUTRAL")
    config.eval_split = "TRIAL"
    with pytest.raises(ValueError, match="line 4: no training row has the class 'CONTRADICTION'"):
        data.info(config)


def test_triplets_without_labels_are_read(tmp_path, make_config):
    rows = [{"a": f"one {i}", "b": f"two {i}", "c": "three"} for i in range(23)]
    rows[4]["c"] = ""
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = make_config(source=f"pairs_rows:{path}", text_fields=("a", "b", "c"), label_field="")
    facts = data.info(config)
    assert (facts.labels, facts.texts) == (None, 3)
    assert facts.examples == {"train": 20, "validation": 2}
    held_out = [found for found in read(config, "validation")[0] if found is not None]
    assert len(held_out) == 2
    for one, two, three, label in held_out:
        assert (one.replace("one", "two"), three, label) == (two, "three", None)
    config.text_fields = ("a",)
    with pytest.raises(ValueError, match="must name two columns"):
        data.info(config)


def test_long_texts_lose_their_ends_between_characters(tmp_path, make_config):
    path = tmp_path / "t.csv"
    lines = ["a,b", *(f"{'ä' * 20},text {i}" for i in range(20))]
    path.write_text("\n".join(lines), encoding="utf-8")
    fields = {"text_fields": ("a", "b"), "label_field": "", "seq_len": 7}
    found, _ = read(make_config(source=f"pairs_rows:{path}", **fields), "validation")
    assert found[0][0] == "äää"
    assert found[0][1].startswith("text ")


# Docstrings.


def test_a_docstring_gives_a_summary_and_a_body():
    source = b'''"""The module.

It says what the module holds, and why."""

def spam(eggs):
    """Cook the eggs.

    The function spam takes eggs; spamming is no word for what
    spam does. Cook the eggs. Then they are done.
    """

class Ham:
    """One line only."""

    async def short(self):
        """Summary.

        Too short."""

    def wide(self):
        """Two lines
        of summary.

        And a body that is long enough to be taken."""
'''
    found = list(stdlib_docstrings.pairs_of("x.py", source))
    assert [(pair.name, pair.summary) for pair in found] == [
        ("", "The module."),
        ("spam", "Cook the eggs."),
    ]
    body = found[1].body
    assert body.startswith("The function   takes eggs; spamming is no word")
    assert "Cook" not in body
    assert list(stdlib_docstrings.pairs_of("x.py", b"def broken(:")) == []


def test_docstrings_of_the_library_are_told_apart_by_file():
    train, held_out = (stdlib_docstrings.read(split) for split in ("train", "validation"))
    assert len(train) > 1_500
    assert len(held_out) > 150
    pairs = train + held_out
    assert not {pair.path for pair in train} & {pair.path for pair in held_out}
    for what in ("summary", "body"):
        assert len({getattr(pair, what) for pair in pairs}) == len(pairs)
    assert not any(pair.summary in pair.body for pair in pairs)


@pytest.mark.parametrize("form", stdlib_docstrings.FORMS)
def test_docstrings_have_four_forms(form, make_config):
    config = make_config(source=f"stdlib_docstrings:{form}", seq_len=61)
    pairs = stdlib_docstrings.read("validation")
    facts = data.info(config)
    source = stdlib_docstrings.source(config, "validation")
    assert facts.examples["validation"] == len(source)
    assert facts.texts == (3 if form == "triplets" else 2)
    example = source.example(4, 0)
    if form in ("classes", "scores"):
        assert len(source) == 2 * len(pairs)
        other = source.example(5, 0)
        assert (example["label"], other["label"]) == (1, 0)
        assert example["texts"] == (pairs[2].summary, pairs[2].body)
        assert other["texts"][0] == pairs[2].summary
        assert other["texts"][1] != pairs[2].body
    else:
        assert example["texts"][:2] == (pairs[4].summary, pairs[4].body)
    if form == "triplets":
        others = [source.pairs[i] for i in source.others]
        same = np.mean([a.path == b.path for a, b in zip(source.pairs, others, strict=True)])
        assert same > 0.8  # the rest are alone in their files
        assert all(a is not b for a, b in zip(source.pairs, others, strict=True))
    batches = data.load(config, "train", batch_size=3, seed=0, train=True)
    assert next(batches)["mask"].all()
    batches.close()


def test_training_pairs_are_stretches_of_their_docstrings(rng):
    pair = next(p for p in stdlib_docstrings.read("train") if len(p.body.split()) > 40)
    body = " ".join(pair.body.split())
    draws = [stdlib_docstrings.stretches(pair, rng) for _ in range(64)]
    assert len({second for _, second in draws}) > 32
    for first, second in draws:
        assert first in f"{pair.summary} {body}"
        assert second in f"{pair.summary} {body}"
        assert len(second.split()) >= 4
    assert 16 < sum(first == pair.summary for first, _ in draws) < 48


def test_an_unknown_form_is_refused(make_config):
    with pytest.raises(ValueError, match="choose one of pairs, classes, scores, triplets"):
        data.info(make_config(source="stdlib_docstrings:halves"))
