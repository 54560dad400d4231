"""Tagging clips of picture and sound: which of K classes are in one (Perceiver, section 4.2).

A clip is trained on by one window of it, and evaluated by several overlapping windows whose scores
are averaged, so that all of its ten seconds count.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import perceiver
from data.clips import clip_records
from train.objective import class_metrics as assessment
from train.objective import losses, ranking
from train.report import ranking_picture, samples
from train.tasks.task import Batch, Task

SHOWN = 4  # sample clips


def make(config: Any, info: Any, sequence: perceiver.Sequence | None = None) -> Task:
    """Returns the task of tagging `info`'s clips with `config.model`.

    Raises:
      ValueError: a model of another kind, or one that the data does not fit.
    """
    model = perceiver.build(config.model.to_dict(), sequence=sequence)
    _check(model.spec, config.data, info)
    modalities = _modalities(model.spec)

    def inputs(window):
        """What the model takes of one window of each clip: pixels in [-1, 1], and the sound."""
        given = {name: window[name] for name in modalities}
        if "video" in given:
            given["video"] = to_unit(given["video"])
        return given

    def loss(params, net_state, rng, batch, *, is_training):
        """In training of one window's logits, else of the scores averaged over windows."""
        if not is_training:
            return evaluate(params, net_state, batch)[0], net_state
        logits, net_state = model.apply(params, net_state, rng, inputs(batch), is_training=True)
        nats = losses.sigmoid_cross_entropy(logits, batch["labels"])  # [B]
        return sums_of(nats, logits, batch), net_state

    def evaluate(params, net_state, batch):
        """Returns the sums and scores [B, K]; windows one after another, to save memory."""
        windows = {name: jnp.moveaxis(batch[name], 1, 0) for name in modalities}  # [V, B, ...]

        def score(window):
            logits, _ = model.apply(params, net_state, None, inputs(window), is_training=False)
            return logits

        logits = jax.lax.map(score, windows)  # [V, B, K]
        nats = losses.averaged_sigmoid_cross_entropy(logits, batch["labels"])
        scores = jnp.mean(jax.nn.sigmoid(logits), axis=0)  # [B, K]
        return sums_of(nats, scores, batch), scores

    def sums_of(nats, scores, batch):
        """`hit`: is the class of the highest score one of the clip's? mAP needs the whole split."""
        mask, labels = batch["mask"], batch["labels"]
        best = jnp.argmax(scores, axis=-1)[:, None]  # [B, 1]
        hit = jnp.take_along_axis(labels, best, axis=-1)[:, 0]
        # A clip of no class has none to hit.
        return {
            "loss": losses.masked_sum(nats, mask),
            "hit": losses.masked_sum(hit, mask & labels.any(axis=-1)),
        }

    def predict(params, net_state, batch):
        sums, scores = evaluate(params, net_state, batch)
        return sums, {"scores": scores, "labels": batch["labels"]}

    def assess(predictions, folder: Path | None):
        ranked = ranking.rank(
            predictions["scores"], predictions["labels"], classes=len(info.labels)
        )
        files = {}
        if folder is not None:
            rows = ranked.rows(info.labels)
            files["classes"] = assessment.write_table(folder / "classes.csv", rows)
            if ranked.counted.any():
                picture = folder / "precision_recall.png"
                files["precision and recall"] = ranking_picture.draw(
                    picture, ranked, predictions["scores"], predictions["labels"], info.labels
                )
        return ranked.summary(), files

    def save_samples(batch: Batch, folder: Path) -> dict[str, Path]:
        real = np.flatnonzero(batch["mask"])[:SHOWN]
        middle = config.data.eval_windows // 2
        clips = {name: batch[name][real, middle] for name in modalities}
        names = ["+".join(_names(row, info.labels)) or "none" for row in batch["labels"][real]]
        path = samples.save_clips(
            folder / "samples",
            names,
            **clips,
            frames_per_second=clip_records.FRAMES_PER_SECOND,
            sample_rate=clip_records.SAMPLE_RATE,
        )
        return {"sample clips": path} if path else {}

    return Task(
        name="tagging",
        model=model,
        init=lambda rng, batch: model.init(rng),
        loss=loss,
        predict=predict,
        assess=assess,
        usage={
            "labels": list(info.labels),
            "video": {"frames_per_second": clip_records.FRAMES_PER_SECOND},
            "audio": {"sample_rate": clip_records.SAMPLE_RATE},
            "windows": config.data.eval_windows,
        },
        shown=("loss", "hit"),
        samples=save_samples,
    )


def to_unit(video: jax.Array) -> jax.Array:  # uint8 [B, T, H, W, 3] -> float32, the same shape
    """Brings pixels to [-1, 1]; 0, as a clip without picture has, is the model's black too."""
    return video.astype(jnp.float32) / 127.5 - 1


def _names(row: np.ndarray, labels) -> list[str]:  # bool [K]
    return [labels[index] for index in np.flatnonzero(row)]


def _modalities(spec: Any) -> tuple[str, ...]:
    return ("video",) * bool(spec.video_shape) + ("audio",) * (spec.audio != "none")


def _check(spec: Any, section: Any, info: Any) -> None:
    if spec.kind != "clip_classifier":
        raise ValueError(f"task 'tagging' needs a clip_classifier model, not a {spec.kind!r}")
    if info.labels is None or spec.classes != len(info.labels):
        classes = 0 if info.labels is None else len(info.labels)
        raise ValueError(
            f"model.classes={spec.classes}, but data set {info.name!r} has {classes} classes; "
            f"set model.classes={classes}"
        )
    modalities = _modalities(spec)
    for name in ("video", "audio"):
        reads = name in modalities
        if section[name] != reads:
            raise ValueError(
                f"data.{name}={section[name]}, but the model {'has' if reads else 'has no'} "
                f"{name}; set data.{name}={reads}"
            )
    shape = (section.frames, section.image_size, section.image_size, 3)
    if "video" in modalities and spec.video_shape != shape:
        raise ValueError(
            f"model.video_shape={spec.video_shape}, but the data gives {shape}; set data.frames "
            "and data.image_size to match"
        )
    if "audio" in modalities and spec.samples != section.audio_samples:
        raise ValueError(
            f"model.samples={spec.samples}, but data.audio_samples={section.audio_samples}; set "
            "one to match the other"
        )
    if "audio" in modalities and spec.sample_rate != clip_records.SAMPLE_RATE:
        raise ValueError(
            f"model.sample_rate={spec.sample_rate}, but clips are prepared at "
            f"{clip_records.SAMPLE_RATE}; set model.sample_rate to that"
        )
