"""The metrics of GLUE, over the predictions of a whole split: scikit-learn's and SciPy's.

A score that is not defined is 0 for classes, as scikit-learn says, and NaN for a correlation with
numbers that never vary, as SciPy says.
"""

import numpy as np

# What the tables of GLUE tell of each task (Perceiver IO, appendix F.4); accuracy of all others.
PRIMARY = {"cola": "matthews", "stsb": "pearson"}


def classification(labels: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, float]:
    """Returns accuracy, F1 and Matthews correlation of classes [N] int against predicted ones.

    F1 is of class 1 where there are two classes, as GLUE has it, else the mean over those classes
    that occur or are predicted.
    """
    from sklearn import metrics  # takes a second

    counted = [1] if classes == 2 else np.union1d(labels, predicted)
    alike = len(np.union1d(labels, predicted)) == 1  # of which scikit-learn warns
    f1 = metrics.f1_score(labels, predicted, labels=counted, average="macro", zero_division=0)
    return {
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "f1": float(f1),
        "matthews": 0.0 if alike else float(metrics.matthews_corrcoef(labels, predicted)),
    }


def regression(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Returns Pearson's and Spearman's correlation of numbers [N]."""
    from scipy import stats

    labels, predicted = np.asarray(labels, np.float64), np.asarray(predicted, np.float64)
    if any(len(x) < 2 or (x == x[0]).all() for x in (labels, predicted)):
        return {"pearson": float("nan"), "spearman": float("nan")}
    return {
        "pearson": float(stats.pearsonr(labels, predicted).statistic),
        "spearman": float(stats.spearmanr(labels, predicted).statistic),
    }


def primary(task: str, scores: dict[str, float]) -> float:
    """Returns the one score by which a task is judged."""
    fallback = "accuracy" if "accuracy" in scores else "pearson"
    return scores[PRIMARY[task] if PRIMARY.get(task) in scores else fallback]
