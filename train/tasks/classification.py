"""Image classification: softmax cross-entropy, top-1 and top-5."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import perceiver
from perceiver.kinds import specs
from train.objective import class_metrics as assessment
from train.objective import losses, metrics, mixing
from train.report import attention_picture, confusion_picture, samples
from train.tasks.task import Batch, Task

SHOWN = 6  # examples of pictures and samples


def make(config: Any, info: Any, sequence: perceiver.Sequence | None = None) -> Task:
    """Returns the task of classifying `info`'s images with `config.model`.

    Raises:
      ValueError: the model's classes or image shape are not those of the data, or the mixing's
        alpha is below 0.
    """
    model = perceiver.build(config.model.to_dict(), sequence=sequence)
    alone = perceiver.build(model.spec)  # for one host, that draws pictures
    _check(model.spec, info)
    smoothing = config.loss.label_smoothing
    alphas = {name: config.loss[name] for name in ("mixup_alpha", "cutmix_alpha")}
    mixing.check(**alphas)

    def score(logits, targets, labels, mask, label_smoothing=0.0):
        """Loss against targets (classes or distributions), accuracy against labels; as sums."""
        nats = losses.softmax_cross_entropy(logits, targets, label_smoothing=label_smoothing)
        sums = {
            "loss": losses.masked_sum(nats, mask),
            "accuracy": metrics.top_k(logits, labels, mask),
        }
        if model.spec.classes > 5:
            sums["top_5"] = metrics.top_k(logits, labels, mask, k=5)
        return sums

    def loss(params, net_state, rng, batch, *, is_training):
        """In training, of mixed examples where mixing is on.

        `accuracy` and `top_5` are then against the class that has most of the picture, and the
        loss has the entropy of the mixed labels as its floor: training numbers of two mixings do
        not compare, nor do they with validation's, where nothing is mixed or smoothed.
        """
        targets = labels = batch["label"]
        if is_training and any(alphas.values()):
            for_mixing, rng = jax.random.split(rng)
            images, targets, _ = mixing.mix(
                for_mixing, batch["image"], labels, batch["mask"], model.spec.classes, **alphas
            )
            batch = batch | {"image": images}
            labels = jnp.argmax(targets, axis=-1)
        logits, net_state = model.apply(params, net_state, rng, batch, is_training=is_training)
        return score(logits, targets, labels, batch["mask"], smoothing * is_training), net_state

    def predict(params, net_state, batch):
        """The sums of evaluation; label, best classes, probability of the best of each example."""
        logits, _ = model.apply(params, net_state, None, batch, is_training=False)
        scores, top = jax.lax.top_k(logits, min(5, model.spec.classes))
        confidence = jnp.exp(scores[:, 0] - jax.nn.logsumexp(logits, axis=-1))
        predictions = {"label": batch["label"], "top": top, "confidence": confidence}
        return score(logits, batch["label"], batch["label"], batch["mask"]), predictions

    def assess(predictions, folder: Path | None):
        calibration = assessment.calibration(predictions)
        scores = {"calibration_error": calibration.error}
        if folder is None:
            return scores, {}
        rows = assessment.per_class(predictions, info.labels)
        confusions = assessment.confusions(predictions)
        picture = folder / "confusions.png"
        return scores, {
            "classes": assessment.write_table(folder / "classes.csv", rows),
            "confusions": confusion_picture.draw(picture, confusions, calibration, info.labels),
        }

    def show(params, net_state, batch: Batch, folder: Path) -> dict[str, Path]:
        images = batch["image"][np.flatnonzero(batch["mask"])[:SHOWN]]
        looks = attention_picture.collect(alone, params, net_state, images)
        if not looks:  # a model without latents has no cross-attends to show
            return {}
        path = attention_picture.draw(folder / "attention.png", _pixels(images, info), looks)
        return {"what the latents attend to": path}

    def save_samples(batch: Batch, folder: Path) -> dict[str, Path]:
        real = np.flatnonzero(batch["mask"])[:SHOWN]
        names = [info.labels[label] for label in batch["label"][real]]
        pixels = _pixels(batch["image"][real], info)
        return {"sample images": samples.save(folder / "samples", pixels, names)}

    return Task(
        name="classification",
        model=model,
        init=lambda rng, batch: model.init(rng),
        loss=loss,
        predict=predict,
        assess=assess,
        usage={
            "labels": list(info.labels),
            "image": {
                "mean": list(info.mean),
                "std": list(info.std),
                "crop_fraction": info.crop_fraction,
            },
        },
        shown=("loss", "accuracy"),
        show=show,
        samples=save_samples,
    )


def _check(spec: Any, info: Any) -> None:
    if spec.kind not in specs.IMAGE_CLASSIFIERS:
        raise ValueError(
            f"task 'classification' needs a model of kind {', '.join(specs.IMAGE_CLASSIFIERS)}, "
            f"not {spec.kind!r}"
        )
    if info.labels is None or spec.classes != len(info.labels):
        classes = 0 if info.labels is None else len(info.labels)
        raise ValueError(
            f"model.classes={spec.classes}, but data set {info.name!r} has {classes} classes; "
            f"set model.classes={classes}"
        )
    if spec.image_shape != info.image_shape:
        raise ValueError(
            f"model.image_shape={spec.image_shape}, but the data gives images of "
            f"{info.image_shape}; set data.image_size and data.channels to match"
        )


def _pixels(images: np.ndarray, info: Any) -> np.ndarray:  # [B, H, W, C] -> the same, in [0, 1]
    return np.clip(images * np.float32(info.std) + np.float32(info.mean), 0, 1)
