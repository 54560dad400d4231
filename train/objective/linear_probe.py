"""What can be read off embeddings by a linear model: classes, or numbers.

Scikit-learn's logistic and ridge regression on standardised features. How strongly they are
regularised is chosen by cross-validation among training rows alone; scores are of rows that took
no part in either. All draws are from the seed: equal inputs give equal results.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import threadpoolctl

from train.objective import text_metrics

STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # C of classes, 1 / alpha of numbers
_INNER_FOLDS = 5  # to choose between them

Fold = tuple[np.ndarray, np.ndarray]  # int, the rows to train on and the rows to judge by


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Scores of a probe, means over the folds."""

    examples: int  # that were judged
    scores: dict[str, float]
    spread: dict[str, float]  # standard deviation of each score over the folds
    strengths: tuple[float, ...]  # one of STRENGTHS for each fold


def of_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:  # [n, E], [n, E] -> [n, 2 E]
    """Returns what a probe of pairs reads, (|u - v|, u * v), as SentEval has it."""
    return np.concatenate([np.abs(first - second), first * second], axis=1)


def folds(labels: np.ndarray, count: int, *, classes: bool, seed: int) -> list[Fold]:
    """Returns parts that each are judged by what was trained on all others.

    Args:
      labels: [n].
      count: of the parts.
      classes: whether each part gets its share of every class.
      seed: of the order.

    Raises:
      ValueError: more parts than rows, or than rows of some class.
    """
    from sklearn import model_selection

    names, sizes = np.unique(labels, return_counts=True) if classes else (["all"], [len(labels)])
    if not 2 <= count <= min(sizes):
        raise ValueError(
            f"folds={count}, but there are {min(sizes)} rows of {str(names[np.argmin(sizes)])!r}: "
            "choose at least 2 and at most that number"
        )
    kind = model_selection.StratifiedKFold if classes else model_selection.KFold
    parts = kind(count, shuffle=True, random_state=seed)
    return list(parts.split(np.zeros(len(labels)), labels if classes else None))


def classify(
    features: np.ndarray,  # [n, F]
    labels: np.ndarray,  # [n]
    parts: Sequence[Fold],
    *,
    seed: int = 0,
) -> ProbeResult:
    """Probes classes: `accuracy`, and `majority`, that of the most frequent training class.

    Raises:
      ValueError: training rows of one class only, or a class with a single one of them.
    """
    from sklearn import linear_model, model_selection

    scores, chosen = [], []
    for train, test in parts:
        names, sizes = np.unique(labels[train], return_counts=True)
        if len(names) < 2 or min(sizes) < 2:
            raise ValueError(
                f"{min(sizes)} training rows are of class {str(names[np.argmin(sizes)])!r}, "
                f"of {len(names)} classes: there must be two classes, with two rows each"
            )
        inner = model_selection.StratifiedKFold(
            min(_INNER_FOLDS, *sizes), shuffle=True, random_state=seed
        )
        grid = {"C": list(STRENGTHS)}
        probe = _search(linear_model.LogisticRegression(max_iter=5000), grid, inner)
        _fit(probe, features[train], labels[train])
        right = probe.predict(features[test]) == labels[test]
        majority = labels[test] == names[np.argmax(sizes)]
        scores.append({"accuracy": float(right.mean()), "majority": float(majority.mean())})
        chosen.append(probe.best_params_["model__C"])
    return _result(scores, chosen, parts)


def regress(
    features: np.ndarray,  # [n, F]
    numbers: np.ndarray,  # [n]
    cosines: np.ndarray,  # [n]
    parts: Sequence[Fold],
    *,
    seed: int = 0,
) -> ProbeResult:
    """Probes numbers: `pearson` and `spearman`, and `cosine_spearman`, of the bare cosines.

    Raises:
      ValueError: fewer training rows than it takes to choose a strength.
    """
    from sklearn import linear_model, model_selection

    scores, chosen = [], []
    for train, test in parts:
        if len(train) < 2 * _INNER_FOLDS:
            raise ValueError(f"{len(train)} training rows; give {2 * _INNER_FOLDS} or more")
        inner = model_selection.KFold(_INNER_FOLDS, shuffle=True, random_state=seed)
        grid = {"alpha": [1 / strength for strength in STRENGTHS]}
        probe = _search(linear_model.Ridge(), grid, inner)
        _fit(probe, features[train], numbers[train])
        measured = text_metrics.regression(numbers[test], probe.predict(features[test]))
        bare = text_metrics.regression(numbers[test], cosines[test])
        scores.append(measured | {"cosine_spearman": bare["spearman"]})
        chosen.append(1 / probe.best_params_["model__alpha"])
    return _result(scores, chosen, parts)


def _search(model: Any, grid: dict[str, list[float]], inner: Any) -> Any:
    from sklearn import model_selection, pipeline, preprocessing

    steps = [("standardise", preprocessing.StandardScaler()), ("model", model)]
    named = {f"model__{name}": values for name, values in grid.items()}
    return model_selection.GridSearchCV(pipeline.Pipeline(steps), named, cv=inner)


def _fit(probe: Any, features: np.ndarray, labels: np.ndarray) -> None:
    """Fits on one thread: many wait for each other longer than such small sums take."""
    with threadpoolctl.threadpool_limits(1):
        probe.fit(features, labels)


def _result(
    scores: list[dict[str, float]], chosen: list[float], parts: Sequence[Fold]
) -> ProbeResult:
    values = {name: [row[name] for row in scores] for name in scores[0]}
    return ProbeResult(
        examples=sum(len(test) for _, test in parts),
        scores={name: float(np.mean(x)) for name, x in values.items()},
        spread={name: float(np.std(x)) for name, x in values.items()},
        strengths=tuple(chosen),
    )
