"""GLUE's metrics: from counts by hand, and where they are not defined."""

import numpy as np
import pytest

from train.objective import text_metrics


def test_two_classes():
    labels = np.repeat([1, 0, 1, 0], [3, 2, 4, 5])  # right, wrongly found, missed, right
    found = np.repeat([1, 1, 0, 0], [3, 2, 4, 5])
    scores = text_metrics.classification(labels, found, 2)
    matthews = (3 * 5 - 2 * 4) / (5 * 7 * 7 * 9) ** 0.5
    expected = {"accuracy": 8 / 14, "f1": 6 / 12, "matthews": matthews}
    assert scores == pytest.approx(expected, rel=1e-12)


def test_the_mean_of_f1_leaves_out_classes_that_never_occur():
    labels, found = np.array([0, 0, 2, 2]), np.array([0, 2, 2, 2])
    scores = text_metrics.classification(labels, found, 7)
    assert scores["f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)


@pytest.mark.parametrize(
    ("labels", "found", "f1"), [([0, 1, 1], [1, 1, 1], 0.8), ([0, 0], [0, 0], 0), ([1], [1], 1)]
)
def test_one_class_alone_has_no_correlation(labels, found, f1):
    scores = text_metrics.classification(np.array(labels), np.array(found), 2)
    assert scores["matthews"] == 0
    assert scores["f1"] == pytest.approx(f1)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e12])
def test_numbers(scale):
    labels = np.array([0.0, 1.0, 1.0, 3.0], np.float32)
    found = np.array([-1.0, 1.0, 2.0, 2.0]) * scale
    scores = text_metrics.regression(labels, found)
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3.5, 3.5.
    expected = {"pearson": 4 / (19 / 4 * 6) ** 0.5, "spearman": 3.75 / 4.5}
    assert scores == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("found", [np.full(5, 0.1), np.full(5, 0.0)])
def test_what_never_varies_has_no_correlation(found):
    assert all(np.isnan(x) for x in text_metrics.regression(np.arange(5), found).values())
    assert all(np.isnan(x) for x in text_metrics.regression(found[:1], found[:1]).values())


def test_each_task_is_judged_as_in_the_tables():
    classes = {"accuracy": 0.5, "f1": 0.6, "matthews": 0.1}
    numbers = {"pearson": 0.7, "spearman": 0.8}
    judged = {"cola": 0.1, "mrpc": 0.5, "sst2": 0.5, "anything": 0.5}
    assert {task: text_metrics.primary(task, classes) for task in judged} == judged
    assert text_metrics.primary("stsb", numbers) == 0.7
    assert text_metrics.primary("anything", numbers) == 0.7
    # a data set of another kind that happens to have that name
    assert text_metrics.primary("cola", numbers) == 0.7
