"""GLUE's metrics are scikit-learn's and SciPy's."""

import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from train import text_metrics


def draw(rng, classes, size=97):
    labels = rng.integers(classes, size=size)
    found = np.where(rng.random(size) < 0.6, labels, rng.integers(classes, size=size))
    return labels, found


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classes(classes, rng):
    for size in (5, 97, 1009):
        labels, found = draw(rng, classes, size)
        scores = text_metrics.classification(labels, found, classes)
        average = "binary" if classes == 2 else "macro"
        expected = {
            "accuracy": sklearn.metrics.accuracy_score(labels, found),
            "f1": sklearn.metrics.f1_score(labels, found, average=average, zero_division=0),
            "matthews": sklearn.metrics.matthews_corrcoef(labels, found),
        }
        assert scores == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("labels", "found"), [([0, 1, 1], [1, 1, 1]), ([0, 0], [0, 0])])
def test_one_class_alone_has_no_correlation(labels, found):
    scores = text_metrics.classification(np.array(labels), np.array(found), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns that there is one class
        assert scores["matthews"] == sklearn.metrics.matthews_corrcoef(labels, found) == 0
        assert scores["f1"] == sklearn.metrics.f1_score(labels, found, zero_division=0)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e12])
def test_numbers(scale, rng):
    labels = rng.integers(0, 26, 211) / 5  # with equals, as STS-B has
    found = (labels + rng.normal(size=211)) * scale
    scores = text_metrics.regression(labels, found)
    assert scores["pearson"] == pytest.approx(scipy.stats.pearsonr(labels, found)[0], rel=1e-10)
    assert scores["spearman"] == pytest.approx(scipy.stats.spearmanr(labels, found)[0], rel=1e-10)
    np.testing.assert_array_equal(text_metrics.ranks(labels), scipy.stats.rankdata(labels))


def test_what_never_varies_has_no_correlation():
    assert np.isnan(text_metrics.pearson(np.arange(5), np.full(5, 0.1)))


def test_each_task_is_judged_as_in_the_tables():
    classes = {"accuracy": 0.5, "f1": 0.6, "matthews": 0.1}
    numbers = {"pearson": 0.7, "spearman": 0.8}
    judged = {"cola": 0.1, "mrpc": 0.5, "sst2": 0.5, "anything": 0.5}
    assert {task: text_metrics.primary(task, classes) for task in judged} == judged
    assert text_metrics.primary("stsb", numbers) == 0.7
    assert text_metrics.primary("anything", numbers) == 0.7
    # a data set of another kind that happens to have that name
    assert text_metrics.primary("cola", numbers) == 0.7
