"""How well scores rank examples, class by class: average precision, ROC AUC, d'.

Everything works on scores [N, K] and labels [N, K], examples by classes, as scikit-learn has it for
multi-label data. The first version of the Perceiver's paper reported wrong numbers because scores
went in transposed (its appendix F): here what cannot be right is refused.
"""

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np

CLASSES_AT_ONCE = 32  # bounds the memory: some arrays of [this, N] float64


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """Scores of each of K classes; NaN where a class has no positives, or no negatives."""

    examples: int  # N
    positives: np.ndarray  # int [K]
    average_precision: np.ndarray  # float64 [K]
    auc: np.ndarray  # float64 [K]

    @property
    def counted(self) -> np.ndarray:  # bool [K]
        """Classes that have positives and negatives: the others have nothing to rank."""
        return (self.positives > 0) & (self.positives < self.examples)

    def summary(self) -> dict[str, float]:
        """Returns mAP and AUC, means over the counted classes, d' of that AUC, and their number.

        Empty without such classes. d' is infinite, and left out, where the AUC is 0 or 1.
        """
        counted = self.counted
        if not counted.any():
            return {}
        auc = float(self.auc[counted].mean())
        scores = {"mAP": float(self.average_precision[counted].mean()), "AUC": auc}
        if 0 < auc < 1:
            scores["d_prime"] = d_prime(auc)
        return scores | {"classes_counted": float(counted.sum())}

    def rows(self, names: Sequence[str]) -> list[dict[str, object]]:
        """Returns a row for each class: class, label, positives, AP, AUC, d'; empty if uncounted.

        Raises:
          ValueError: not as many names as classes.
        """
        counted = self.counted
        return [
            {
                "class": index,
                "label": name,
                "positives": int(self.positives[index]),
                "average_precision": float(self.average_precision[index]) if counted[index] else "",
                "auc": float(self.auc[index]) if counted[index] else "",
                "d_prime": d_prime(float(self.auc[index])) if counted[index] else "",
            }
            for index, name in zip(range(len(counted)), names, strict=True)
        ]


def d_prime(auc: float) -> float:
    """Returns sqrt(2) z(AUC): how far apart two normal distributions of that AUC would lie."""
    if auc in (0.0, 1.0):
        return float(np.inf if auc else -np.inf)
    return float(np.sqrt(2) * statistics.NormalDist().inv_cdf(auc))


def rank(scores: np.ndarray, labels: np.ndarray, *, classes: int) -> Ranking:
    """Ranks the examples of each class.

    Args:
      scores: floating [N, K] in [0, 1].
      labels: bool [N, K].
      classes: K, as those who know their names have it: shapes alone do not tell a transposed pair.

    Raises:
      ValueError: other shapes, dtypes or values.
    """
    _check(scores, labels, classes)
    ranking = Ranking(
        examples=len(labels),
        positives=labels.sum(axis=0),
        average_precision=np.full(classes, np.nan),
        auc=np.full(classes, np.nan),
    )
    for first in range(0, classes, CLASSES_AT_ONCE):
        part = slice(first, first + CLASSES_AT_ONCE)
        counted = np.flatnonzero(ranking.counted[part]) + first
        if len(counted):
            # Rows are contiguous, which sorting and adding up are faster on.
            rows = np.ascontiguousarray(scores[:, counted].T), labels[:, counted].T
            ranking.average_precision[counted], ranking.auc[counted] = _rank_rows(*rows)
    return ranking


def _rank_rows(
    scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # [K, N], bool [K, N] -> [K], [K]
    """Average precision and AUC of rows that have positives and negatives.

    Examples of equal score share a place: precision is taken where the last of them ends (as
    scikit-learn does), and their rank is the mean of theirs (Mann and Whitney).
    """
    count = scores.shape[1]
    order = np.argsort(-scores, axis=1)
    ordered = np.take_along_axis(scores, order, axis=1)
    hits = np.take_along_axis(labels, order, axis=1)
    places = np.arange(count)
    changes = np.diff(ordered, axis=1) != 0  # [K, N - 1]
    edge = np.ones((len(scores), 1), bool)
    # First and last place of the group of equal scores that each place belongs to.
    starts = np.where(np.concatenate([edge, changes], axis=1), places[None], 0)
    starts = np.maximum.accumulate(starts, axis=1)
    ends = np.where(np.concatenate([changes, edge], axis=1), places[None], count)
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    totals = np.cumsum(hits, axis=1)
    positives = totals[:, -1]
    precision = np.take_along_axis(totals, ends, axis=1) / (ends + 1)  # [K, N]
    average_precision = (precision * hits).sum(axis=1) / positives
    ranks = count - (starts + ends) / 2  # the lowest score has rank 1
    surplus = (ranks * hits).sum(axis=1) - positives * (positives + 1) / 2
    return average_precision, surplus / (positives * (count - positives))


def _check(scores: np.ndarray, labels: np.ndarray, classes: int) -> None:
    if not np.issubdtype(scores.dtype, np.floating) or labels.dtype != bool:
        raise ValueError(
            f"scores must be floating and labels bool, got {scores.dtype} and {labels.dtype}: "
            "are the two swapped?"
        )
    if scores.shape != labels.shape or scores.ndim != 2 or scores.shape[1] != classes:
        raise ValueError(
            f"scores {scores.shape} and labels {labels.shape} must both be (examples, {classes} "
            "classes): is one of them transposed?"
        )
    if not len(scores):
        raise ValueError("there are no examples to rank")
    if not (scores.min() >= 0 and scores.max() <= 1):  # NaN is in no interval
        raise ValueError(
            f"scores must lie in [0, 1], but reach from {scores.min()} to {scores.max()}: "
            "give probabilities, not logits"
        )
