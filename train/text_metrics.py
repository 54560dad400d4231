"""The metrics of GLUE, over the predictions of a whole split, in float64.

Equal to scikit-learn's and SciPy's. A score that is not defined (a correlation with what never
varies) is 0 where scikit-learn says 0, and NaN for a correlation of numbers, as SciPy says.
"""

import numpy as np

# What the tables of GLUE tell of each task (Perceiver IO, appendix F.4); accuracy of all others.
PRIMARY = {"cola": "matthews", "stsb": "pearson"}


def classification(labels: np.ndarray, found: np.ndarray, classes: int) -> dict[str, float]:
    """Returns accuracy, F1 and Matthews correlation of classes [N] int against found ones.

    F1 is of class 1 where there are two classes, as GLUE has it, else the mean over classes.
    """
    matrix = confusions(labels, found, classes)
    return {
        "accuracy": float(np.trace(matrix) / matrix.sum()),
        "f1": f1(matrix),
        "matthews": matthews(matrix),
    }


def regression(labels: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Returns Pearson's and Spearman's correlation of numbers [N]."""
    return {"pearson": pearson(labels, found), "spearman": spearman(labels, found)}


def primary(task: str, scores: dict[str, float]) -> float:
    """Returns the one score by which a task is judged."""
    fallback = "accuracy" if "accuracy" in scores else "pearson"
    return scores[PRIMARY[task] if PRIMARY.get(task) in scores else fallback]


def confusions(labels: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:  # [K, K]
    """Counts pairs: a row for each true class, a column for each found one."""
    pairs = np.asarray(labels, np.int64) * classes + np.asarray(found, np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def f1(matrix: np.ndarray) -> float:  # [K, K]
    """Returns the harmonic mean of precision and recall; 0 of a class that never occurs."""
    right = np.diagonal(matrix).astype(np.float64)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    scores = np.divide(2 * right, total, out=np.zeros_like(right), where=total > 0)
    # Classes that neither occur nor are found do not count in the mean.
    return float(scores[1]) if len(scores) == 2 else float(scores[total > 0].mean())


def matthews(matrix: np.ndarray) -> float:  # [K, K]
    """Returns the correlation of true and found classes (Gorodkin's, of two or more classes)."""
    matrix = matrix.astype(np.float64)
    true, found, count = matrix.sum(axis=1), matrix.sum(axis=0), matrix.sum()
    covariance = np.trace(matrix) * count - true @ found
    spread = (count**2 - found @ found) * (count**2 - true @ true)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


def pearson(a: np.ndarray, b: np.ndarray) -> float:  # [N], [N]
    """Returns the linear correlation; NaN if one of both never varies."""
    a, b = (np.asarray(x, np.float64) - np.mean(x, dtype=np.float64) for x in (a, b))
    # Scaled first: squares of the smallest and largest numbers leave the range.
    spreads = [np.abs(x).max() for x in (a, b)]
    if not all(spreads):
        return float("nan")
    a, b = a / spreads[0], b / spreads[1]
    correlation = (a @ b) / np.sqrt((a @ a) * (b @ b))
    return float(np.clip(correlation, -1, 1))


def spearman(a: np.ndarray, b: np.ndarray) -> float:  # [N], [N]
    """Returns the correlation of ranks; equals share the mean of theirs."""
    return pearson(ranks(a), ranks(b))


def ranks(values: np.ndarray) -> np.ndarray:  # [N] -> f64 [N]
    """Returns the place of each in order, from 1; equals share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places]
