"""Sentence encoders: texts in, embeddings out, and how alike the texts of a pair are."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from perceiver.kinds import specs
from perceiver.pretrained.runner import Runner
from perceiver.pretrained.use import image, items
from perceiver.pretrained.use.items import listed
from perceiver.text import coders, lengths, sequences

Text = str | bytes


class Compared(NamedTuple):
    """A pair of texts."""

    cosine: float  # of their embeddings
    labels: list[tuple[str, float]]  # (label, probability), best first; [] of a model without


def prepare(
    spec: specs.SentenceEncoder, usage: dict[str, Any], texts: Any
) -> dict[str, np.ndarray]:
    """Returns {"tokens", "input_mask"} [n, length], padded to a power of two.

    Args:
      spec: of the model.
      usage: its tokeniser.
      texts: one or several: strings, or UTF-8 bytes. What is too long for the model loses its end,
        between two characters.

    Raises:
      ValueError: there is no text, or one is empty.
    """
    return _padded(spec, *_rows(spec, usage, listed(texts)))


def embed(run: Runner, texts: Any, usage: dict[str, Any]) -> np.ndarray:  # float32 [n, E]
    """Returns the embedding of each text, pooled as the model was trained; raises as `prepare`.

    Texts of like length are run together, so that short ones do not cost what long ones do.
    """
    spec = run.model.spec
    rows, coder = _rows(spec, usage, listed(texts))
    sizes = np.array([lengths.padded(len(row), spec.text_length) for row in rows])
    embeddings = None
    for size in np.unique(sizes):
        where = np.flatnonzero(sizes == size)
        outputs = run.apply(_padded(spec, [rows[i] for i in where], coder))["embedding"]
        if embeddings is None:
            embeddings = np.empty((len(rows), outputs.shape[-1]), np.float32)
        embeddings[where] = outputs
    return embeddings


def compare(
    run: Runner, pairs: Sequence[tuple[Text, Text]], usage: dict[str, Any], *, top_k: int = 5
) -> list[Compared]:
    """Returns the cosine similarity, and the classes if the model has any, of pairs of texts.

    Raises:
      ValueError: as `prepare`, or something is no pair.
    """
    for number, pair in enumerate(pairs):
        if isinstance(pair, Text) or len(pair) != 2:
            raise ValueError(f"pair {number} must be two texts, got {pair!r}")
    spec = run.model.spec
    joint = prepare(spec, usage, [text for pair in pairs for text in pair])
    tokens, mask = joint["tokens"], joint["input_mask"]
    inputs = {"tokens": tokens[::2], "input_mask": mask[::2]}
    inputs |= {"tokens_b": tokens[1::2], "mask_b": mask[1::2]}
    outputs = run.apply(inputs)
    u, v = (outputs[name].astype(np.float64) for name in ("embedding", "embedding_b"))
    norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    cosines = (u * v).sum(axis=1) / np.maximum(norms, 1e-12)
    labels = [[] for _ in pairs]
    if spec.classes:
        logits = outputs["logits"]
        labels = [image.best_of(row[None], usage["labels"], top_k) for row in logits]
    return [Compared(float(c), label) for c, label in zip(cosines, labels, strict=True)]


def _rows(spec, usage, texts: Sequence[Text]) -> tuple[list[np.ndarray], coders.Coder]:
    if not len(texts):
        raise ValueError("give at least one text")
    items.texts(list(texts))
    coder, rows = coders.of_usage(usage), []
    for number, text in enumerate(texts):
        ids = coder.encode(text)
        if not len(ids):
            raise ValueError(f"text {number} is empty; leave it out")
        rows.append(sequences.join([ids], spec.text_length, coder))
    return rows, coder


def _padded(spec, rows: Sequence[np.ndarray], coder: coders.Coder) -> dict[str, np.ndarray]:
    length = lengths.padded(max(map(len, rows)), spec.text_length)
    tokens, mask = sequences.pad(rows, length, coder)
    return {"tokens": tokens, "input_mask": mask}
