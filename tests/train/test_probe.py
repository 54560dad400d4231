"""Linear probes: of embeddings whose structure is known, and of a small file."""

import csv
import json
import types

import numpy as np
import pytest

import perceiver
from train import probe
from train.objective import linear_probe


@pytest.fixture(autouse=True)
def strengths(monkeypatch):
    """Fewer to choose between: it takes less time."""
    monkeypatch.setattr(linear_probe, "STRENGTHS", (0.01, 1.0))


def parts_of(labels, count=3, classes=True):
    return linear_probe.folds(labels, count, classes=classes, seed=0)


def test_separable_classes_are_told_and_shuffled_labels_are_not(rng):
    labels = np.array(["a", "b", "c"])[np.arange(150) % 3]
    features = 20 * np.eye(3)[np.arange(150) % 3] + rng.standard_normal((150, 3))
    features = np.concatenate([features, 50 * rng.standard_normal((150, 2))], axis=1)
    found = linear_probe.classify(features, labels, parts_of(labels))
    assert found.scores["accuracy"] > 0.98
    assert found.scores["majority"] == pytest.approx(1 / 3, abs=0.03)
    assert (found.examples, len(found.strengths)) == (150, 3)
    shuffled = rng.permutation(labels)
    chance = linear_probe.classify(features, shuffled, parts_of(shuffled)).scores["accuracy"]
    assert 0.15 < chance < 0.5


def test_no_row_that_is_judged_is_trained_on(rng):
    """With labels of chance, only those who saw a row could tell its label."""
    features = rng.standard_normal((60, 59))
    labels = rng.permutation(np.arange(60) % 2)
    inside = (np.arange(60), np.arange(60))  # judged by what it was trained on
    assert linear_probe.classify(features, labels, [inside]).scores["accuracy"] > 0.85
    assert linear_probe.classify(features, labels, parts_of(labels)).scores["accuracy"] < 0.7
    for train, test in parts_of(labels):
        assert not set(train) & set(test)


def test_pairs_need_both_features(rng):
    first, second = rng.standard_normal((2, 200, 3))
    signs = np.sign(first[:, 0] * second[:, 0]).astype(int)
    pairs = linear_probe.of_pairs(first, second)
    assert pairs.shape == (200, 6)
    np.testing.assert_allclose(pairs, linear_probe.of_pairs(second, first))
    assert linear_probe.classify(pairs, signs, parts_of(signs)).scores["accuracy"] > 0.85
    assert linear_probe.classify(first, signs, parts_of(signs)).scores["accuracy"] < 0.65


def test_numbers(rng):
    features = rng.standard_normal((97, 5))
    numbers = features @ np.array([1, -2, 3, 0, 0]) + 0.1 * rng.standard_normal(97)
    parts = parts_of(numbers, classes=False)
    found = linear_probe.regress(features, numbers, features[:, 2], parts)
    assert found.scores["pearson"] > 0.99
    assert found.scores["spearman"] > 0.98
    assert 0.6 < found.scores["cosine_spearman"] < 0.95


def test_equal_seeds_give_equal_results(rng):
    features = rng.standard_normal((80, 7))
    labels = (features[:, 0] + rng.standard_normal(80) > 0).astype(int)
    results = [
        linear_probe.classify(
            features, labels, linear_probe.folds(labels, 3, classes=True, seed=seed), seed=seed
        )
        for seed in (5, 5, 6)
    ]
    assert results[0] == results[1]
    assert results[0] != results[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parts_of(np.array([0, 0, 0, 1])), "folds=3, but there are 1 rows of '1'"),
        (lambda: parts_of(np.arange(4), 5, classes=False), "there are 4 rows of 'all'"),
        (
            lambda: linear_probe.classify(np.eye(3), np.zeros(3), [(np.arange(3), np.arange(3))]),
            "there must be two classes",
        ),
        (
            lambda: linear_probe.regress(*[np.eye(3)] * 3, [(np.arange(3), np.arange(3))]),
            "3 training rows; give 10 or more",
        ),
    ],
)
def test_too_little_data_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The command.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model; texts of two alphabets, which any byte embedding tells apart; pairs of them."""
    folder = tmp_path_factory.mktemp("probe")
    spec = {"kind": "masked_lm_transformer", "layers": 1, "channels": 16, "heads": 2}
    perceiver.fresh(spec | {"max_length": 64}).save(folder / "model")
    draw = np.random.default_rng(1)
    words = ["".join(draw.choice(list(s), 9)) for s in ("aeiou", "01234") for _ in range(30)]
    kinds = ["letters"] * 30 + ["digits"] * 30
    order = draw.permutation(60)
    with (folder / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "other", "kind", "alike", "score"])
        for i, j in enumerate(order):
            alike = kinds[i] == kinds[j]
            table.writerow([words[i], words[j], kinds[i], alike, float(alike)])
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    monkeypatch.setattr(probe.compile_cache, "enable_if_possible", lambda: None)

    def run(*words):
        probe.main([str(folder / "model"), str(folder / "rows.csv"), "--folds=3", *words])
        return capsys.readouterr().out

    return run


def test_a_file_of_texts(run, folder):
    words = ("--field=text", "--label_field=kind")
    told = run(*words)
    assert told.startswith("60 rows, 3 folds\n  accuracy ")
    found = json.loads(run(*words, "--json"))
    assert found["scores"]["accuracy"] > 0.9
    assert found["scores"]["majority"] == pytest.approx(0.5)
    assert run(*words, f"--test={folder / 'rows.csv'}").startswith("60 rows, held out\n")


def test_a_file_of_pairs(run):
    words = ("--field=text", "--field=other", "--json")
    pairs = json.loads(run(*words, "--kind=pairs", "--label_field=alike"))
    assert pairs["scores"]["accuracy"] > pairs["scores"]["majority"] + 0.2
    related = json.loads(run(*words, "--kind=relatedness", "--label_field=score"))
    assert related["scores"].keys() == {"pearson", "spearman", "cosine_spearman"}
    assert related["scores"]["pearson"] > 0.5


def test_what_does_not_fit_is_told(folder, tmp_path, run, capsys):
    for words, message in (
        (["--kind=pairs", "--field=text"], "pairs takes 2"),
        (["--field=absent", "--label_field=kind"], "no column 'absent'"),
        (["--field=text", "--label_field=kind", "--folds=31"], "folds=31"),
        (["--field=text", "--label_field=kind", "--test=no.csv"], "no.csv: no such file"),
    ):
        with pytest.raises(SystemExit):
            run(*words)
        assert message in capsys.readouterr().err
    other = tmp_path / "other.csv"
    other.write_text("text,kind\nabc,runes\n")
    with pytest.raises(SystemExit):
        run("--field=text", "--label_field=kind", f"--test={other}")
    assert "has the class 'runes', which" in capsys.readouterr().err


def test_a_text_that_comes_again_is_embedded_once(monkeypatch):
    seen = []

    def embed(_, texts):
        seen.extend(texts)
        return np.arange(len(texts), dtype=np.float32)[:, None]

    monkeypatch.setattr(probe.embedding, "embed", embed)
    first, second = probe._embed(types.SimpleNamespace(), [("a", "b"), ("b", "a"), ("c", "b")])
    assert seen == ["a", "b", "c"]
    assert first[:, 0].tolist() == [0, 1, 2]
    assert second[:, 0].tolist() == [1, 0, 1]
