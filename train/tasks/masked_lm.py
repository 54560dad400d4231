"""Masked language modelling: predict the hidden bytes or subwords (Perceiver IO, section 4.1).

Of a mixture of texts, evaluation tells the bits of each source too. With subwords there are bits
per byte besides, of the text that the hidden subwords stand for, which compare with those of bytes.
Perplexity, in all and by source, is what `python -m train.evaluate` adds, with a table of the
sources. What the model makes of a held-out window is said at each evaluation; more of them are
written at the end of a run, and at any time before by `python -m train.pictures RUN`.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import data
import perceiver
from data.text import byte_predictors, tokenising
from perceiver.kinds import specs
from perceiver.text import tokenizer
from train.objective import class_metrics as assessment
from train.objective import losses, metrics
from train.report import completions
from train.tasks.task import Batch, Task

# Bytes of the training text on which the predictors to compare with are counted: more of them
# change nothing in counts of pairs, and take memory.
COUNTED = 100_000_000


def make(config: Any, info: Any, sequence: perceiver.Sequence | None = None) -> Task:
    """Returns the task of filling in `config.data`'s masked tokens with `config.model`.

    Raises:
      ValueError: the model is of another kind, its positions are fewer than data.seq_len, or its
        vocabulary is smaller than the tokeniser's.
      FileNotFoundError, ImportError: the tokeniser's file or library is not there.
    """
    model = perceiver.build(config.model.to_dict(), sequence=sequence)
    subwords = None
    if config.data.tokenizer != tokenising.BYTES:
        subwords = tokenising.load_subwords(config.data.tokenizer)
    _check(model.spec, config.data, subwords)
    sources = source_names(config.data.source)

    def loss(params, net_state, rng, batch, *, is_training):
        logits, net_state = model.apply(params, net_state, rng, batch, is_training=is_training)
        return sums_of(logits, batch, by_source=not is_training), net_state

    def sums_of(logits, batch, *, by_source):
        nats = losses.softmax_cross_entropy(logits, batch["targets"])  # [B, M]
        mask = batch["target_mask"]
        total, weight = losses.masked_sum(nats, mask)
        correct = jnp.argmax(logits, axis=-1) == batch["targets"]
        sums = {
            "loss": (total, weight),
            "bits": (metrics.to_bits(total), weight),  # per masked token
            "accuracy": losses.masked_sum(correct, mask),
        }
        if subwords is not None:
            sizes = jnp.asarray(subwords.sizes)[batch["targets"]]  # [B, M]
            sums["bits_per_byte"] = (metrics.to_bits(total), losses.masked_sum(sizes, mask)[0])
        if by_source and "source" in batch and len(sources) > 1:
            for number, name in enumerate(sources):
                own = mask & (batch["source"] == number)[:, None]
                total, weight = losses.masked_sum(nats, own)
                sums[f"{name}/bits"] = (metrics.to_bits(total), weight)
        return sums

    def predict(params, net_state, batch):
        logits, _ = model.apply(params, net_state, None, batch, is_training=False)
        mask, targets = batch["target_mask"], batch["targets"]
        nats = losses.softmax_cross_entropy(logits, targets)
        none = jnp.zeros(mask.shape[:1], jnp.int32)
        kept = {
            "nats": jnp.where(mask, nats, 0).sum(axis=1),  # [B]
            "masked": mask.sum(axis=1),
            "correct": ((jnp.argmax(logits, axis=-1) == targets) & mask).sum(axis=1),
            "source": batch.get("source", none),
        }
        return sums_of(logits, batch, by_source=True), kept

    def assess(predictions: Batch, folder: Path | None):
        return assess_sources(predictions, sources, folder)

    alone = perceiver.build(model.spec)  # for one host, that fills in a few windows
    fill = jax.jit(lambda *given: alone.apply(*given, is_training=False)[0])
    decode = tokenizer.decode if subwords is None else subwords.decode

    def guesses(params, net_state, batch: Batch) -> tuple[Batch, np.ndarray]:
        some = {name: x[: completions.SHOWN] for name, x in batch.items()}
        return some, completions.best(np.asarray(fill(params, net_state, None, some)))

    def remark(params, net_state, batch: Batch) -> str:
        return completions.line(*guesses(params, net_state, batch), decode)

    def show(params, net_state, batch: Batch, folder: Path) -> dict[str, Path]:
        text = completions.render(*guesses(params, net_state, batch), decode)
        return {"completions": completions.write(folder / "completions.txt", text)}

    def references(batches: Iterable[Batch]) -> dict[str, float]:
        if subwords is not None:
            return {}  # the predictors count bytes
        scores = byte_predictors.score(_predictors(config.data), batches)
        return {f"{name}/bits": bits / count for name, (bits, count) in scores.items() if count}

    usage = {"tokenizer": tokenising.BYTES}
    if subwords is not None:
        usage = {"tokenizer": "sentencepiece", "file": str(Path(config.data.tokenizer).resolve())}
    return Task(
        name="masked_lm",
        model=model,
        init=lambda rng, batch: model.init(rng),
        loss=loss,
        predict=predict,
        assess=assess,
        usage=usage,
        shown=("loss", "bits", "accuracy"),
        references=references,
        remark=remark,
        show=show,
    )


def source_names(source: str) -> tuple[str, ...]:
    """Returns what the texts of a mixture are called, in the order of a batch's `source`."""
    _, _, names = source.partition(":")
    return tuple((names or source).split("+"))


def assess_sources(
    predictions: Batch, sources: tuple[str, ...], folder: Path | None
) -> tuple[dict[str, float], dict[str, Path]]:
    """Returns perplexities, in all and by source, and where the table of sources is.

    Args:
      predictions: `nats`, `masked`, `correct` and `source`, [N] each.
      sources: their names.
      folder: for the table; None: none is written.
    """
    rows = []
    for number, name in enumerate(sources):
        at = predictions["source"] == number
        count = int(predictions["masked"][at].sum())
        if not count:
            continue
        nats = float(predictions["nats"][at].astype(np.float64).sum()) / count
        rows.append(
            {
                "source": name,
                "windows": int(at.sum()),
                "masked_tokens": count,
                "bits": metrics.to_bits(nats),
                "perplexity": math.exp(nats),
                "accuracy": float(predictions["correct"][at].sum()) / count,
            }
        )
    masked = int(predictions["masked"].sum())
    if not masked:
        return {}, {}
    nats = float(predictions["nats"].astype(np.float64).sum()) / masked
    scores = {"perplexity": math.exp(nats)}
    if len(sources) > 1:
        scores |= {f"{row['source']}/perplexity": row["perplexity"] for row in rows}
    if folder is None or not rows:
        return scores, {}
    return scores, {"sources": assessment.write_table(folder / "sources.csv", rows)}


def _check(spec: Any, section: Any, subwords: Any) -> None:
    if spec.kind not in specs.MASKED_LMS:
        kinds = " or ".join(specs.MASKED_LMS)
        raise ValueError(f"task 'masked_lm' needs a {kinds} model, not a {spec.kind!r}")
    if section.seq_len > spec.max_length:
        raise ValueError(
            f"data.seq_len={section.seq_len} is longer than the model's "
            f"model.max_length={spec.max_length}; raise the latter or cut shorter windows"
        )
    needed = tokenizer.VOCABULARY if subwords is None else subwords.vocabulary
    if spec.vocabulary < needed:
        raise ValueError(
            f"model.vocabulary={spec.vocabulary} is too small for data.tokenizer="
            f"{section.tokenizer!r}, which has {needed} ids; set model.vocabulary={needed}"
        )


def _predictors(section: Any) -> byte_predictors.BytePredictors:
    """Unigram and bigram, counted on the training split."""
    stream = data.stream(section, "train")[:COUNTED]  # uint8
    return byte_predictors.fit(stream, hidden=tokenising.hidden_bytes(section.masking))
