"""Image classification: softmax cross-entropy, top-1 and top-5."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import perceiver
from perceiver import specs
from train import losses, metrics, mixing, pictures
from train.tasks.task import Batch, Task


def make(config: Any, info: Any) -> Task:
    """Returns the task of classifying `info`'s images with `config.model`.

    Raises:
      ValueError: the model's classes or image shape are not those of the data, or the mixing's
        alpha is below 0.
    """
    model = perceiver.build(config.model.to_dict())
    _check(model.spec, info)
    smoothing = config.loss.label_smoothing
    alphas = {name: config.loss[name] for name in ("mixup_alpha", "cutmix_alpha")}
    mixing.check(**alphas)

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
        nats = losses.softmax_cross_entropy(
            logits, targets, label_smoothing=smoothing if is_training else 0.0
        )
        sums = {
            "loss": losses.masked_sum(nats, batch["mask"]),
            "accuracy": metrics.top_k(logits, labels, batch["mask"]),
        }
        if model.spec.classes > 5:
            sums["top_5"] = metrics.top_k(logits, labels, batch["mask"], k=5)
        return sums, net_state

    def show(params, net_state, batch: Batch, folder: Path) -> dict[str, Path]:
        pixels = _pixels(batch["image"], info)
        real = np.flatnonzero(batch["mask"])[:6]
        images = {"image": batch["image"][real]}
        maps = jax.jit(model.attention_maps)(params, net_state, images)
        names = [info.labels[label] for label in batch["label"][real]]
        samples = pictures.save_samples(folder / "samples", pixels[real], names)
        shown = {"sample images": samples}
        if not maps:  # a model without latents has no cross-attends to show
            return shown
        attention = pictures.draw_attention(
            folder / "attention.png", pixels[real], [np.asarray(m) for m in maps]
        )
        return {"what the latents attend to": attention} | shown

    return Task(
        name="classification",
        model=model,
        init=lambda rng, batch: model.init(rng),
        loss=loss,
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
