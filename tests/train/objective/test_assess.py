"""The assessment of a classifier against scikit-learn, and formulas written out once more."""

import csv

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sklearn

from train.objective import class_metrics
from train.report import confusion_picture, names

CLASSES, EXAMPLES = 11, 997


def draw_logits(rng, classes=CLASSES, examples=EXAMPLES):
    """Logits that are often right, and labels of which one class is never seen."""
    labels = rng.integers(classes - 1, size=examples)
    logits = rng.normal(size=(examples, classes)) + 1.5 * np.eye(classes)[labels]
    return logits * rng.uniform(0.3, 3, size=(examples, 1)), labels


def predictions_of(logits, labels):
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    top = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    return {"label": labels, "top": top, "confidence": probabilities.max(axis=1).astype("f4")}


@pytest.fixture
def logits(rng):
    return draw_logits(rng)


@pytest.fixture
def predictions(logits):
    return predictions_of(*logits)


def test_confusions_are_scikit_learns(predictions):
    matrix = class_metrics.confusions(predictions).matrix(CLASSES)
    expected = sklearn.confusion_matrix(
        predictions["label"], predictions["top"][:, 0], labels=range(CLASSES)
    )
    np.testing.assert_array_equal(matrix, expected)


def test_the_worst_pairs_come_first_and_are_mistakes(predictions):
    found = class_metrics.confusions(predictions)
    matrix = found.matrix(CLASSES)
    np.fill_diagonal(matrix, 0)
    worst = found.worst(7)
    assert [n for _, _, n in worst] == sorted(matrix.ravel(), reverse=True)[:7]
    assert all(matrix[a, b] == n for a, b, n in worst)
    assert len(found.worst(10_000)) == (matrix > 0).sum()


def expected_calibration_error(probabilities, right, bins=15):
    """The definition, one bin after another."""
    total = 0.0
    for b in range(bins):
        members = [i for i, p in enumerate(probabilities) if b / bins < float(p) <= (b + 1) / bins]
        if members:
            accuracy = sum(bool(right[i]) for i in members) / len(members)
            confidence = sum(float(probabilities[i]) for i in members) / len(members)
            total += len(members) / len(probabilities) * abs(accuracy - confidence)
    return total


def test_the_calibration_error_is_that_of_its_definition(predictions):
    found = class_metrics.calibration(predictions)
    right = predictions["top"][:, 0] == predictions["label"]
    expected = expected_calibration_error(predictions["confidence"], right)
    assert found.error == pytest.approx(expected, rel=1e-9)
    assert found.error > 0.01
    assert found.counts.sum() == EXAMPLES
    gaps = found.counts * np.nan_to_num(found.accuracy)
    assert gaps.sum() == pytest.approx(right.sum())


@pytest.mark.parametrize("confidence", [1 / 15, 2 / 3, 1.0])
def test_an_edge_belongs_to_the_bin_below(confidence):
    predictions = {
        "label": np.array([0]),
        "top": np.array([[0, 1]]),
        "confidence": np.array([confidence]),
    }
    found = class_metrics.calibration(predictions)
    assert found.counts.argmax() == round(confidence * 15) - 1
    assert found.error == pytest.approx(1 - confidence)


def test_a_model_as_sure_as_it_is_right_has_no_error():
    right = np.arange(1000) % 5 < 4  # four of five
    predictions = {
        "label": np.zeros(1000, int),
        "top": np.where(right, 0, 1)[:, None],
        "confidence": np.full(1000, 0.8),
    }
    assert class_metrics.calibration(predictions).error == pytest.approx(0, abs=1e-12)


def test_the_table_of_classes_is_scikit_learns(logits, predictions):
    scores, labels = logits
    names = [f"class, {i}" for i in range(CLASSES)]
    rows = class_metrics.per_class(predictions, names)
    assert [row["class"] for row in rows] == list(range(CLASSES))
    assert [row["label"] for row in rows] == names
    recalls = sklearn.recall_score(
        labels, predictions["top"][:, 0], labels=range(CLASSES - 1), average=None
    )
    matrix = class_metrics.confusions(predictions).matrix(CLASSES)
    np.fill_diagonal(matrix, 0)
    for index, row in enumerate(rows[:-1]):
        of_class = labels == index
        assert row["examples"] == of_class.sum()
        assert row["top_1"] == pytest.approx(recalls[index])
        top_5 = sklearn.top_k_accuracy_score(
            labels[of_class], scores[of_class], k=5, labels=range(CLASSES)
        )
        assert row["top_5"] == pytest.approx(top_5)
        assert row["mean_confidence"] == pytest.approx(
            predictions["confidence"][of_class].mean(), rel=1e-5
        )
        assert row["confused_examples"] == matrix[index].max()
        assert matrix[index, names.index(row["most_confused_with"])] == matrix[index].max()
    assert rows[-1] == {
        "class": CLASSES - 1,
        "label": names[-1],
        "examples": 0,
        "top_1": "",
        "top_5": "",
        "mean_confidence": "",
        "most_confused_with": "",
        "confused_examples": 0,
    }


def test_the_table_is_a_csv_file(predictions, tmp_path):
    names = [f'class "{i}", ümlaut' for i in range(CLASSES)]
    path = class_metrics.write_table(
        tmp_path / "out" / "c.csv", class_metrics.per_class(predictions, names)
    )
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == names
    assert sum(int(row["examples"]) for row in rows) == EXAMPLES


def test_three_classes_have_no_top_5(rng):
    predictions = predictions_of(*draw_logits(rng, classes=3, examples=29))
    rows = class_metrics.per_class(predictions, ["a", "b", "c"])
    assert [row["top_5"] for row in rows] == ["", "", ""]


@pytest.mark.parametrize("classes", [3, 31, 613])
def test_pictures_of_few_and_of_many_classes(rng, classes, tmp_path):
    predictions = predictions_of(*draw_logits(rng, classes))
    names = [f"${i}$ a name too long to be written out in full" for i in range(classes)]
    path = confusion_picture.draw(
        tmp_path / "out" / "picture.png",
        class_metrics.confusions(predictions),
        class_metrics.calibration(predictions),
        names,
    )
    with Image.open(path) as picture:
        assert picture.width > picture.height > 300
        assert np.asarray(picture.convert("L")).std() > 10


def test_a_picture_of_a_model_without_mistakes(tmp_path):
    predictions = {
        "label": np.arange(41),
        "top": np.arange(41)[:, None],
        "confidence": np.ones(41, "f4"),
    }
    found = class_metrics.confusions(predictions)
    assert found.worst(20) == []
    calibration = class_metrics.calibration(predictions)
    confusion_picture.draw(tmp_path / "p.png", found, calibration, [str(i) for i in range(41)])


@pytest.mark.filterwarnings("error")  # matplotlib warns of each letter that its fonts lack
def test_names_of_other_scripts_are_drawn_or_numbered(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(names, "_others", tuple)  # no fonts but matplotlib's own
    given = ["犬", "שלום", "café $1"]
    with names.drawn(given) as shown:
        assert shown == ["class 0", "םולש", r"café \$1"]
    predictions = predictions_of(*draw_logits(rng, classes=3, examples=29))
    found = class_metrics.confusions(predictions), class_metrics.calibration(predictions)
    confusion_picture.draw(tmp_path / "p.png", *found, given)
    monkeypatch.setattr(names, "_others", lambda: ("has it",))
    monkeypatch.setattr(names, "_letters", lambda family: frozenset("犬" * (family == "has it")))
    with names.drawn(["犬"]) as shown:
        assert shown == ["犬"]
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "has it"]
