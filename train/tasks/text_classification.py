"""Classification of texts and pairs of texts, or a number for each, of one task or several.

As Perceiver IO fine-tunes on GLUE (section 4.1, appendix F.4): softmax cross-entropy of classes,
squared error of numbers. An example of several tasks trains the head of its own.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import perceiver
from perceiver.text import coders
from train.objective import class_metrics as assessment
from train.objective import losses, metrics, text_metrics
from train.report import confusion_picture
from train.tasks.task import Task


def make(config: Any, info: Any, sequence: perceiver.Sequence | None = None) -> Task:
    """Returns the task of labelling `info`'s texts with `config.model`.

    Raises:
      ValueError: a model of another kind, or one that the data does not fit.
    """
    model = perceiver.build(config.model.to_dict(), sequence=sequence)
    _check(model.spec, config.data, info)
    columns = model.spec.columns
    smoothing = config.loss.label_smoothing

    def score(logits, batch, label_smoothing=0.0):
        """Returns the sums; those of each task too, if there are several."""
        losses_of, sums = [], {}
        for place, (name, column) in enumerate(columns.items()):
            counts = batch["mask"] & (batch["task"] == place) if name else batch["mask"]
            nats, right = _compare(logits[:, column], batch["label"], counts, label_smoothing)
            losses_of.append(losses.masked_sum(nats, counts))
            if right is not None:
                sums[f"{name}/accuracy" if name else "accuracy"] = right
            if name:
                sums[f"{name}/loss"] = losses_of[-1]
        total = tuple(sum(parts) for parts in zip(*losses_of, strict=True))
        return {"loss": total} | sums

    def loss(params, net_state, rng, batch, *, is_training):
        logits, net_state = model.apply(params, net_state, rng, batch, is_training=is_training)
        return score(logits, batch, smoothing * is_training), net_state

    def predict(params, net_state, batch):
        """The sums of evaluation; label, task and logits [B, K] of each example."""
        logits, _ = model.apply(params, net_state, None, batch, is_training=False)
        task = batch["task"] if model.spec.tasks else jnp.zeros(len(logits), jnp.int32)
        return score(logits, batch), {"label": batch["label"], "task": task, "logits": logits}

    def assess(predictions, folder: Path | None):
        results, files, primary = {}, {}, []
        for place, (name, column) in enumerate(columns.items()):
            rows = predictions["task"] == place
            if not rows.any():
                continue
            logits, label = predictions["logits"][rows, column], predictions["label"][rows]
            scores = _scores(logits, label)
            primary.append(text_metrics.primary(name or _last_word(info.name), scores))
            if name:
                scores |= {"score": primary[-1]}
            results |= {f"{name}/{what}" if name else what: x for what, x in scores.items()}
            if folder is not None and logits.shape[-1] > 1:
                labels = [label.removeprefix(f"{name}: ") for label in info.labels[column]]
                into = folder / name if name else folder
                files |= _describe(logits, label, labels, into, name)
        return results | {"score": float(np.mean(primary))}, files

    return Task(
        name="text_classification",
        model=model,
        init=lambda rng, batch: model.init(rng),
        loss=loss,
        predict=predict,
        assess=assess,
        usage={"labels": list(info.labels)} | coders.usage(config.data.tokenizer),
        shown=("loss", "accuracy"),
    )


def _compare(
    logits: jax.Array,  # [B, K]
    label: jax.Array,  # [B]
    counts: jax.Array,  # bool [B]
    label_smoothing: float,
):
    """Returns the loss of each example, and the sum of right answers (None: numbers)."""
    if logits.shape[-1] == 1:
        return jnp.square(logits[:, 0] - label.astype(jnp.float32)), None
    # Labels of other tasks may be no classes of this one.
    label = jnp.where(counts, label, 0).astype(jnp.int32)
    nats = losses.softmax_cross_entropy(logits, label, label_smoothing=label_smoothing)
    return nats, metrics.top_k(logits, label, counts)


def _scores(logits: np.ndarray, label: np.ndarray) -> dict[str, float]:
    if logits.shape[-1] == 1:
        scores = text_metrics.regression(label, logits[:, 0])
        # Answers that never vary have no correlation: 0, as of classes, so that tables stay whole.
        return {name: x if np.isfinite(x) else 0.0 for name, x in scores.items()}
    return text_metrics.classification(label, logits.argmax(axis=-1), logits.shape[-1])


def _describe(logits, label, labels, folder: Path, name: str) -> dict[str, Path]:
    """Writes the table of the classes and the picture of confusions."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = logits.astype(np.float64)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    predictions = {
        "label": label.astype(np.int64),
        "top": np.argsort(-logits, axis=-1, kind="stable")[:, :5],
        "confidence": (shares.max(axis=-1) / shares.sum(axis=-1)).astype(np.float32),
    }
    rows = assessment.per_class(predictions, labels)
    calibration = assessment.calibration(predictions)
    confusions = assessment.confusions(predictions)
    before = f"{name}: " if name else ""
    picture = folder / "confusions.png"
    return {
        f"{before}classes": assessment.write_table(folder / "classes.csv", rows),
        f"{before}confusions": confusion_picture.draw(picture, confusions, calibration, labels),
    }


def _last_word(name: str) -> str:
    """Returns "cola" of "tfds_text:glue/cola"."""
    return name.rpartition("/")[2]


def _check(spec: Any, section: Any, info: Any) -> None:
    if spec.kind != "text_classifier":
        raise ValueError(
            f"task 'text_classification' needs a text_classifier model, not a {spec.kind!r}"
        )
    vocabulary = coders.coder(section.tokenizer).vocabulary
    if spec.vocabulary < vocabulary:
        raise ValueError(
            f"model.vocabulary={spec.vocabulary}, but data.tokenizer={section.tokenizer!r} has "
            f"{vocabulary} ids; set model.vocabulary={vocabulary}"
        )
    classes = len(info.labels or ())
    if spec.classes != classes:
        raise ValueError(
            f"model.classes={spec.classes}, but data set {info.name!r} has {classes} classes; "
            f"set model.classes={classes}"
        )
    theirs = tuple(info.tasks.items()) if len(info.tasks) > 1 else ()
    ours = spec.heads if spec.tasks else ()
    if ours != theirs:
        raise ValueError(
            f"the model has the tasks {dict(ours)}, but data set {info.name!r} has {dict(theirs)}; "
            "set model.tasks and model.task_classes, or data.source"
        )
    if section.seq_len > spec.text_length:
        raise ValueError(
            f"data.seq_len={section.seq_len} is longer than the {spec.text_length} tokens that the "
            "model reads; lower it, or raise model.max_length"
        )
