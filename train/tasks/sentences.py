"""Sentence embeddings: both texts of a pair, or all three of a triplet, through one encoder.

Objectives (Sentence-BERT, section 3; `config.loss.objective`):

  classification   cross-entropy of softmax(W (u, v, |u - v|)) against the classes of pairs
  cosine           squared error of cos(u, v) against scores from 0 to 1
  triplet          max(|a - p| - |a - n| + margin, 0), Euclidean
  negatives        cross-entropy of finding each text's partner among the batch's, both ways. The
                   paper has it not; it is how encoders are trained today

`negatives` compares the rows that one step sees at once: all of the (micro-)batch, but under `pmap`
those of each replica alone. So its loss depends on the batch size, in evaluation too.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import perceiver
from perceiver.text import coders
from train.objective import losses, metrics, retrieval, sentence_losses, text_metrics
from train.tasks.task import Batch, Task

# objective -> (texts of an example, what their labels are)
OBJECTIVES = {
    "classification": (2, "classes"),
    "cosine": (2, "scores"),
    "triplet": (3, "none"),
    "negatives": (2, "none"),
}
_INPUTS = ("tokens", "input_mask", "tokens_b", "mask_b", "tokens_c", "mask_c")


def make(config: Any, info: Any, sequence: perceiver.Sequence | None = None) -> Task:
    """Returns the task of embedding `info`'s pairs or triplets with `config.model`.

    Raises:
      ValueError: an unknown objective, a model of another kind, or data that does not fit.
    """
    model = perceiver.build(config.model.to_dict(), sequence=sequence)
    _check(model.spec, config, info)
    objective, section = config.loss.objective, config.loss

    def score(outputs, batch, *, is_training):
        """Returns the sums of what a step can tell."""
        u, v, mask = outputs["embedding"], outputs["embedding_b"], batch["mask"]
        right = None
        if objective == "classification":
            logits = outputs["logits"]
            label = jnp.where(mask, batch["label"], 0)
            smoothing = section.label_smoothing * is_training
            each = losses.softmax_cross_entropy(logits, label, label_smoothing=smoothing)
            right = metrics.top_k(logits, label, mask)
        elif objective == "cosine":
            each = sentence_losses.cosine_error(u, v, batch["label"])
        elif objective == "triplet":
            w = outputs["embedding_c"]
            each = sentence_losses.triplet(u, v, w, margin=section.margin)
            nearer = sentence_losses.distance(u, v) < sentence_losses.distance(u, w)
            right = losses.masked_sum(nearer, mask)
        else:
            given = {"temperature": section.temperature}
            each = sentence_losses.in_batch_negatives(u, v, mask, **given)
            logits, _ = sentence_losses.in_batch_scores(u, v, mask, **given)
            right = metrics.top_k(logits, jnp.arange(len(u)), mask)
        accuracy = {} if right is None else {"accuracy": right}
        return {"loss": losses.masked_sum(each, mask)} | accuracy

    def run(params, net_state, rng, batch, *, is_training):
        inputs = {name: batch[name] for name in _INPUTS if name in batch}
        return model.apply(params, net_state, rng, inputs, is_training=is_training)

    def loss(params, net_state, rng, batch, *, is_training):
        outputs, net_state = run(params, net_state, rng, batch, is_training=is_training)
        return score(outputs, batch, is_training=is_training), net_state

    def predict(params, net_state, batch):
        """The sums of evaluation; the embeddings [B, E] of each example, and its label."""
        outputs, _ = run(params, net_state, None, batch, is_training=False)
        sums = score(outputs, batch, is_training=False)
        kept = {name: x for name, x in outputs.items() if name.startswith("embedding")}
        return sums, kept | ({"label": batch["label"]} if "label" in batch else {})

    def assess(predictions: Batch, folder: Path | None):
        del folder
        return assess_embeddings(predictions, objective), {}

    def references(batches: Iterable[Batch]) -> dict[str, float]:
        if objective == "classification":
            labels = np.concatenate([batch["label"][batch["mask"]] for batch in batches])
            return {"majority/accuracy": np.bincount(labels).max() / len(labels)}
        if objective == "triplet":
            return {"chance/accuracy": 0.5}
        if objective == "cosine":
            return {}
        chance = retrieval.chance(info.examples["validation"])
        return {f"chance/{name}": x for name, x in chance.items()}

    return Task(
        name="sentences",
        model=model,
        init=lambda rng, batch: model.init(rng),
        loss=loss,
        predict=predict,
        assess=assess,
        usage={"labels": _class_names(model.spec, info)} | coders.usage(config.data.tokenizer),
        shown=("loss",) if objective == "cosine" else ("loss", "accuracy"),
        references=references,
    )


def assess_embeddings(predictions: Batch, objective: str) -> dict[str, float]:
    """Returns what embeddings of a whole split are worth.

    Args:
      predictions: "embedding", "embedding_b" (and "embedding_c") [N, E], perhaps "label" [N].
      objective: that they were trained for.

    Returns:
      Of scores Pearson's and Spearman's correlation with the cosine, 0 where it never varies; of
      pairs without labels, how often the first text finds the second among those of all pairs; of
      triplets the accuracy, by either measure.
    """
    u, v = (predictions[name].astype(np.float64) for name in ("embedding", "embedding_b"))
    if objective == "classification":
        return {}
    if objective == "negatives":
        return retrieval.summary(retrieval.ranks(u, v))
    if objective == "cosine":
        scores = text_metrics.regression(predictions["label"], _cosine(u, v))
        return {name: x if np.isfinite(x) else 0.0 for name, x in scores.items()}
    w = predictions["embedding_c"].astype(np.float64)
    nearer = np.linalg.norm(u - v, axis=1) < np.linalg.norm(u - w, axis=1)
    return {
        "accuracy": float(nearer.mean()),
        "cosine_accuracy": float((_cosine(u, v) > _cosine(u, w)).mean()),
    }


def _cosine(u: np.ndarray, v: np.ndarray) -> np.ndarray:  # [N, E], [N, E] -> [N]
    lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    return (u * v).sum(axis=1) / np.maximum(lengths, 1e-12)


def _class_names(spec: Any, info: Any) -> list[str]:
    if _labels(info) == "classes":
        return list(info.labels)
    return [f"class {i}" for i in range(spec.classes)]  # trained by another run, if any


def _check(spec: Any, config: Any, info: Any) -> None:
    objective, section = config.loss.objective, config.data
    if spec.kind != "sentence_encoder":
        raise ValueError(f"task 'sentences' needs a sentence_encoder model, not a {spec.kind!r}")
    if objective not in OBJECTIVES:
        raise ValueError(
            f"loss.objective={objective!r} is unknown; choose one of {', '.join(OBJECTIVES)}"
        )
    texts, labels = OBJECTIVES[objective]
    there = _labels(info)
    if (info.texts, there) != (texts, labels):
        raise ValueError(
            f"loss.objective={objective!r} needs {texts} texts and {_WANTED[labels]}, but data set "
            f"{info.name!r} has {info.texts} and {_WANTED[there]}; choose another objective, or "
            "set data.text_fields, data.label_field and data.regression"
        )
    # A model that was trained to classify may be evaluated, or trained on, by another objective.
    if labels == "classes" and spec.classes != len(info.labels):
        raise ValueError(
            f"model.classes={spec.classes}, but data set {info.name!r} has {len(info.labels)}; set "
            f"model.classes={len(info.labels)}"
        )
    if not config.loss.temperature > 0 or not config.loss.margin >= 0:
        raise ValueError(
            f"loss.temperature={config.loss.temperature} must be above 0, and "
            f"loss.margin={config.loss.margin} at least 0"
        )
    vocabulary = coders.coder(section.tokenizer).vocabulary
    if spec.vocabulary < vocabulary:
        raise ValueError(
            f"model.vocabulary={spec.vocabulary}, but data.tokenizer={section.tokenizer!r} has "
            f"{vocabulary} ids; set model.vocabulary={vocabulary}"
        )
    if section.seq_len > spec.text_length:
        raise ValueError(
            f"data.seq_len={section.seq_len} is longer than the {spec.text_length} tokens that the "
            "model reads; lower it, or raise model.max_length"
        )


_WANTED = {"classes": "classes as labels", "scores": "scores as labels", "none": "no labels"}


def _labels(info: Any) -> str:
    if not info.labels:
        return "none"
    return "scores" if len(info.labels) == 1 else "classes"
