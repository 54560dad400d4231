"""What one pass over labelled examples says of a classifier, beyond its mean scores.

Works on predictions: a dict of arrays with one row for each real example,

    label       int [N]     its class
    top         int [N, k]  the classes of the k highest scores, the highest first; k <= 5
    confidence  f32 [N]     the probability of the highest

so that nothing here grows with examples times classes.
"""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

BINS = 15  # of confidence, as in Guo et al.

Predictions = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Examples by confidence, in bins of equal width: (0, 1/15], (1/15, 2/15], ..."""

    counts: np.ndarray  # int [BINS]
    confidence: np.ndarray  # [BINS], mean of a bin; NaN of an empty one
    accuracy: np.ndarray  # [BINS], likewise

    @property
    def error(self) -> float:
        """Expected calibration error: |accuracy - confidence|, averaged over examples."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def calibration(predictions: Predictions, bins: int = BINS) -> Calibration:
    """Compares how sure a model is with how often it is right (Guo et al. 2017, section 2)."""
    confidence = predictions["confidence"].astype(np.float64)
    right = predictions["top"][:, 0] == predictions["label"]
    edges = np.arange(1, bins) / bins
    place = np.digitize(confidence, edges, right=True)  # an upper edge belongs to its bin
    counts = np.bincount(place, minlength=bins)

    def mean(values):
        sums = np.bincount(place, weights=values, minlength=bins)
        return np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0)

    return Calibration(counts, mean(confidence), mean(right))


@dataclasses.dataclass(frozen=True)
class Confusions:
    """How often each class was taken for which: only the pairs that occur."""

    labels: np.ndarray  # int [P], true classes
    taken_for: np.ndarray  # int [P], predicted ones
    counts: np.ndarray  # int [P]

    def matrix(self, classes: int) -> np.ndarray:  # int [K, K]
        """Returns all counts: a row for each true class."""
        matrix = np.zeros((classes, classes), np.int64)
        matrix[self.labels, self.taken_for] = self.counts
        return matrix

    def worst(self, count: int) -> list[tuple[int, int, int]]:
        """Returns the most frequent mistakes: (true, predicted, how often)."""
        wrong = np.flatnonzero(self.labels != self.taken_for)
        order = wrong[np.argsort(-self.counts[wrong], kind="stable")][:count]
        rows = zip(self.labels[order], self.taken_for[order], self.counts[order], strict=True)
        return [(int(a), int(b), int(n)) for a, b, n in rows]


def confusions(predictions: Predictions) -> Confusions:
    """Counts the pairs of true and predicted class, in the order of their numbers."""
    pairs = np.stack([predictions["label"], predictions["top"][:, 0]])
    (labels, taken_for), counts = np.unique(pairs, axis=1, return_counts=True)
    return Confusions(labels, taken_for, counts)


def per_class(predictions: Predictions, names: Sequence[str]) -> list[dict[str, object]]:
    """Returns a row for each class, those without examples too.

    Args:
      predictions: see above.
      names: of the K classes.

    Returns:
      class, label, examples, top_1, top_5, mean_confidence (of whatever was predicted for its
      examples), most_confused_with (the most frequent wrong prediction) and how often that is.
      What has no value is an empty string.
    """
    labels = predictions["label"]
    hits = predictions["top"] == labels[:, None]  # [N, k]
    counts = np.bincount(labels, minlength=len(names))

    def mean(values, place):
        return float(values[place].mean()) if len(place) else ""

    order = np.argsort(labels, kind="stable")
    places = np.split(order, np.cumsum(counts)[:-1])  # of each class
    # The worst first: the last one written for a class would win.
    confused = {a: (b, n) for a, b, n in reversed(confusions(predictions).worst(len(labels)))}
    rows = []
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        other, times = confused.get(index, (None, 0))
        rows.append(
            {
                "class": index,
                "label": name,
                "examples": len(place),
                "top_1": mean(hits[:, 0], place),
                "top_5": mean(hits.any(axis=1), place) if hits.shape[1] == 5 else "",
                "mean_confidence": mean(predictions["confidence"].astype(np.float64), place),
                "most_confused_with": "" if other is None else names[other],
                "confused_examples": times,
            }
        )
    return rows


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Writes rows of equal keys as a CSV file; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {key: f"{x:.6g}" if isinstance(x, float) else x for key, x in row.items()}
            )
    return path
