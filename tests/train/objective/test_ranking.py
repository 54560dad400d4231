"""Rankings against scikit-learn, closed forms, and the ways to get them wrong."""

import math
import time

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sklearn

from train.objective import ranking
from train.report import ranking_picture

EXAMPLES, CLASSES = 211, 37


def draw(rng, levels=None):
    """Scores that tell something, of few `levels` if ties are wanted, and labels."""
    labels = rng.random((EXAMPLES, CLASSES)) < rng.uniform(0.02, 0.6, (1, CLASSES))
    labels[0], labels[1] = True, False  # every class has both
    scores = np.clip(rng.normal(0.4, 0.2, labels.shape) + 0.15 * labels, 0, 1)
    if levels:
        scores = np.round(scores * levels) / levels
    return scores.astype(np.float32), labels


@pytest.mark.parametrize("levels", [None, 3, 11])
def test_it_is_scikit_learns_ties_included(rng, levels):
    scores, labels = draw(rng, levels)
    found = ranking.rank(scores, labels, classes=CLASSES)
    for k in range(CLASSES):
        expected = sklearn.average_precision_score(labels[:, k], scores[:, k])
        assert found.average_precision[k] == pytest.approx(expected, abs=1e-12)
        expected = sklearn.roc_auc_score(labels[:, k], scores[:, k])
        assert found.auc[k] == pytest.approx(expected, abs=1e-12)
    summary = found.summary()
    expected = sklearn.average_precision_score(labels, scores, average="macro")
    assert summary["mAP"] == pytest.approx(expected, abs=1e-12)
    assert summary["AUC"] == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=1e-12)
    assert summary["classes_counted"] == CLASSES


def test_the_order_of_examples_and_a_monotonous_change_of_scores_do_not_matter(rng):
    scores, labels = draw(rng, levels=7)
    order = rng.permutation(EXAMPLES)
    first = ranking.rank(scores, labels, classes=CLASSES)
    second = ranking.rank(scores[order] ** 2, labels[order], classes=CLASSES)
    np.testing.assert_allclose(first.average_precision, second.average_precision, atol=1e-12)
    np.testing.assert_allclose(first.auc, second.auc, atol=1e-12)


def test_equal_scores_are_worth_the_prevalence(rng):
    _, labels = draw(rng)
    found = ranking.rank(np.full(labels.shape, 0.5), labels, classes=CLASSES)
    np.testing.assert_allclose(found.average_precision, labels.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.auc, 0.5, atol=1e-12)
    assert found.summary()["d_prime"] == pytest.approx(0, abs=1e-9)


def test_classes_with_nothing_to_rank_are_left_out_and_counted(rng):
    scores, labels = draw(rng)
    labels[:, 5] = False
    labels[:, 7] = True
    found = ranking.rank(scores, labels, classes=CLASSES)
    kept = [k for k in range(CLASSES) if k not in (5, 7)]
    rest = ranking.rank(scores[:, kept], labels[:, kept], classes=len(kept))
    assert found.summary() == rest.summary()
    assert found.summary()["classes_counted"] == CLASSES - 2
    rows = found.rows([f"class {k}" for k in range(CLASSES)])
    empty = {"average_precision": "", "auc": "", "d_prime": ""}
    assert rows[5] == {"class": 5, "label": "class 5", "positives": 0} | empty
    assert rows[7] == {"class": 7, "label": "class 7", "positives": EXAMPLES} | empty
    assert rows[3]["average_precision"] == found.average_precision[3]
    nothing = ranking.rank(scores[:, :1], np.zeros((EXAMPLES, 1), bool), classes=1)
    assert nothing.summary() == {}


def test_d_prime_is_that_of_two_normal_distributions(rng):
    # Of unit variance and `distance` apart: AUC = Phi(distance / sqrt(2)).
    for distance in (-1.3, 0.0, 0.7, 2.9):
        auc = (1 + math.erf(distance / 2)) / 2
        assert ranking.d_prime(auc) == pytest.approx(distance, abs=1e-9)
    assert ranking.d_prime(1.0) == math.inf
    assert ranking.d_prime(0.0) == -math.inf


def test_a_perfect_ranking_has_no_finite_d_prime():
    labels = np.array([[True], [False], [True]])
    summary = ranking.rank(labels.astype(float), labels, classes=1).summary()
    assert summary == {"mAP": 1.0, "AUC": 1.0, "classes_counted": 1.0}


def test_transposed_scores_are_refused(rng):
    # What happened to the paper's first version: scikit-learn took [K, N] for [N, K].
    scores, labels = draw(rng)
    for wrong in ((scores.T, labels), (scores, labels.T), (scores.T, labels.T)):
        with pytest.raises(ValueError, match="transposed"):
            ranking.rank(*wrong, classes=CLASSES)


def test_what_cannot_be_scores_or_labels_is_refused(rng):
    scores, labels = draw(rng)
    with pytest.raises(ValueError, match="swapped"):
        ranking.rank(labels, scores, classes=CLASSES)
    with pytest.raises(ValueError, match="labels bool"):
        ranking.rank(scores, labels.astype(int), classes=CLASSES)
    with pytest.raises(ValueError, match="not logits"):
        ranking.rank(scores * 9 - 4, labels, classes=CLASSES)
    scores[3, 5] = np.nan
    with pytest.raises(ValueError, match="nan"):
        ranking.rank(scores, labels, classes=CLASSES)
    with pytest.raises(ValueError, match="no examples"):
        ranking.rank(scores[:0], labels[:0], classes=CLASSES)


def test_all_of_audioset_takes_seconds(rng):
    scores = rng.random((20_000, 527), np.float32)
    labels = rng.random((20_000, 527), np.float32) < 0.01
    start = time.process_time()
    ranking.rank(scores, labels, classes=527)
    assert time.process_time() - start < 20


def test_curves_are_scikit_learns(rng):
    scores, labels = draw(rng, levels=13)
    for k in range(5):
        precision, recall = ranking_picture.precision_recall(scores[:, k], labels[:, k])
        expected = sklearn.precision_recall_curve(labels[:, k], scores[:, k])
        # Scikit-learn goes up, and ends in a point that it adds.
        np.testing.assert_allclose(precision, expected[0][-2::-1], atol=1e-12)
        np.testing.assert_allclose(recall, expected[1][-2::-1], atol=1e-12)


@pytest.mark.parametrize("classes", [1, 3, 37])
def test_pictures_of_few_and_of_many_classes(rng, classes, tmp_path):
    scores, labels = (x[:, :classes] for x in draw(rng))
    labels[:, 1:2] = False
    found = ranking.rank(scores, labels, classes=classes)
    names = [f"${k}$ a name that is much too long to be written out" for k in range(classes)]
    path = ranking_picture.draw(tmp_path / "out" / "p.png", found, scores, labels, names)
    with Image.open(path) as picture:
        assert picture.width > 2 * picture.height > 300
        assert np.asarray(picture.convert("L")).std() > 10
