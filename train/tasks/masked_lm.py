"""Masked language modelling on bytes: predict the hidden ones (Perceiver IO, section 4.1)."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp

import data
import perceiver
from data import byte_predictors, tokenising
from train import losses, metrics
from train.tasks.task import Batch, Task


def make(config: Any, info: Any) -> Task:
    """Returns the task of filling in `config.data`'s masked bytes with `config.model`.

    Raises:
      ValueError: the model is of another kind, or its positions are fewer than data.seq_len.
    """
    model = perceiver.build(config.model.to_dict())
    if model.spec.kind != "masked_lm":
        raise ValueError(f"task 'masked_lm' needs a masked_lm model, not a {model.spec.kind!r}")
    if config.data.seq_len > model.spec.max_length:
        raise ValueError(
            f"data.seq_len={config.data.seq_len} is longer than the model's "
            f"model.max_length={model.spec.max_length}; raise the latter or cut shorter windows"
        )

    def loss(params, net_state, rng, batch, *, is_training):
        logits, net_state = model.apply(params, net_state, rng, batch, is_training=is_training)
        nats = losses.softmax_cross_entropy(logits, batch["targets"])  # [B, M]
        total, weight = losses.masked_sum(nats, batch["target_mask"])
        correct = jnp.argmax(logits, axis=-1) == batch["targets"]
        sums = {
            "loss": (total, weight),
            "bits": (metrics.to_bits(total), weight),  # per masked byte
            "accuracy": losses.masked_sum(correct, batch["target_mask"]),
        }
        return sums, net_state

    def references(batches: Iterable[Batch]) -> dict[str, float]:
        predictors = _predictors(config.data)
        scores = byte_predictors.score(predictors, batches)
        return {f"{name}/bits": bits / count for name, (bits, count) in scores.items() if count}

    return Task(
        name="masked_lm",
        model=model,
        init=lambda rng, batch: model.init(rng),
        loss=loss,
        usage={"tokenizer": "bytes"},
        shown=("loss", "bits", "accuracy"),
        references=references,
    )


def _predictors(section: Any) -> byte_predictors.BytePredictors:
    """Unigram and bigram, counted on the training split."""
    stream = data.stream(section, "train")  # [T] uint8
    return byte_predictors.fit(stream, hidden=tokenising.hidden_bytes(section.masking))
