"""The task of masked language modelling: sums by source, perplexity, completions."""

import csv

import jax
import ml_collections
import numpy as np
import pytest

from data import DatasetInfo
from perceiver.text import tokenizer
from train import tasks
from train.report import completions
from train.tasks import masked_lm

MODEL = {
    "kind": "masked_lm",
    "max_length": 13,
    "embedding_channels": 8,
    "latents": 5,
    "latent_channels": 8,
    "layers": 1,
    "cross_heads": 2,
    "self_heads": 2,
    "query_heads": 2,
    "query_qk_channels": 4,
}
TRANSFORMER = {
    "kind": "masked_lm_transformer",
    "max_length": 13,
    "layers": 1,
    "channels": 8,
    "heads": 2,
}
BATCH = 7


def make(model=MODEL, **data):
    section = {"tokenizer": "bytes", "seq_len": 13, "masking": "word", "source": "text:a+b+c"}
    config = ml_collections.ConfigDict({"task": "masked_lm", "model": model})
    config.data = ml_collections.ConfigDict(section | data)
    return tasks.make(config, DatasetInfo(name="random", examples={}))


@pytest.fixture
def batch(rng):
    targets = rng.integers(tokenizer.OFFSET, tokenizer.VOCABULARY, (BATCH, 13)).astype(np.int32)
    target_mask = rng.random((BATCH, 13)) < 0.4
    target_mask[-1] = False  # a row that fills up the batch
    return {
        "tokens": np.where(target_mask, tokenizer.MASK, targets).astype(np.int32),
        "targets": targets,
        "input_mask": np.ones((BATCH, 13), bool),
        "target_mask": target_mask,
        "mask": np.arange(BATCH) < BATCH - 1,
        "source": np.array([0, 2, 0, 0, 2, 2, 0], np.int32),  # nothing of source 1
    }


@pytest.mark.parametrize("model", [MODEL, TRANSFORMER], ids=["latents", "transformer"])
def test_scores_by_source_add_up_and_give_perplexity(batch, tmp_path, model):
    task = make(model)
    params, state = jax.jit(task.init)(jax.random.key(0), None)
    sums, kept = jax.device_get(jax.jit(task.predict)(params, state, batch))
    sources = {name: sums[f"{name}/bits"] for name in "abc"}
    for total, parts in zip(sums["bits"], zip(*sources.values(), strict=True), strict=True):
        assert sum(parts) == pytest.approx(total, rel=1e-5)
    assert sources["b"] == (0, 0)
    counts = [batch["target_mask"][batch["source"] == i].sum() for i in range(3)]
    assert [weight for _, weight in sources.values()] == counts
    found, files = task.assess({k: x[batch["mask"]] for k, x in kept.items()}, tmp_path)
    assert found["perplexity"] == pytest.approx(2 ** (sums["bits"][0] / sums["bits"][1]), rel=1e-5)
    assert found["c/perplexity"] == pytest.approx(2 ** np.divide(*sources["c"]), rel=1e-5)
    assert "b/perplexity" not in found
    with files["sources"].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == ["a", "c"]
    assert [int(row["masked_tokens"]) for row in rows] == [counts[0], counts[2]]
    trained, _ = jax.eval_shape(
        lambda *given: task.loss(*given, is_training=True), params, state, jax.random.key(1), batch
    )
    assert trained.keys() == {"loss", "bits", "accuracy"}  # sources are of evaluation
    shown = task.show(params, state, batch, tmp_path)["completions"].read_text()
    assert shown.count("=== window") == completions.SHOWN


def test_nothing_masked_has_no_perplexity():
    none = dict.fromkeys(("nats", "masked", "correct", "source"), np.zeros(3))
    assert masked_lm.assess_sources(none, ("a",), None) == ({}, {})


def test_names_of_sources():
    assert masked_lm.source_names("text:c4+wiki") == ("c4", "wiki")
    assert masked_lm.source_names("stdlib_text") == ("stdlib_text",)


def test_a_completion_is_read_beside_the_truth():
    targets = np.zeros((2, 11), np.int32)
    targets[0, :9] = tokenizer.encode("the né cat"[:8])
    hidden = np.zeros((2, 11), bool)
    hidden[0, [0, 1, 2, 4, 5, 6]] = True
    guesses = targets.copy()
    guesses[0, 5] = tokenizer.encode("x")[0]  # breaks the é
    batch = {"targets": targets, "input_mask": targets > 0, "target_mask": hidden}
    batch["mask"] = np.array([True, False])
    text = completions.render(batch, guesses, tokenizer.decode)
    assert text == "=== window 0: 5 of 6 hidden tokens are right\n{the} {né|nx\ufffd} c\n"


def test_a_line_shows_the_first_window_with_something_hidden():
    targets = np.stack([tokenizer.encode("nothing!"), tokenizer.encode("a\nb cd e")])
    hidden = np.zeros((2, 8), bool)
    hidden[1, [4, 5]] = True
    batch = {"targets": targets, "input_mask": np.ones((2, 8), bool), "target_mask": hidden}
    batch["mask"] = np.ones(2, bool)
    guesses = np.stack([targets[0], tokenizer.encode("a\nb xd e")])
    assert completions.line(batch, guesses, tokenizer.decode) == "a⏎b {cd|xd} e"
    batch["target_mask"] = np.zeros((2, 8), bool)
    assert completions.line(batch, guesses, tokenizer.decode) == ""


def test_the_best_guess_is_never_a_special_token(rng):
    logits = rng.standard_normal((2, 3, tokenizer.VOCABULARY))
    logits[..., tokenizer.MASK] = 100
    logits[1, 2, 7] = 50
    found = completions.best(logits)
    assert (found >= tokenizer.OFFSET).all()
    assert found[1, 2] == 7


def test_a_vocabulary_too_small_is_refused():
    message = r"model\.vocabulary=31 is too small for data\.tokenizer='bytes', which has 262 ids"
    with pytest.raises(ValueError, match=message):
        make(MODEL | {"vocabulary": 31})
    with pytest.raises(ValueError, match=r"data\.seq_len=14 is longer"):
        make(seq_len=14)
    with pytest.raises(ValueError, match="needs a masked_lm or masked_lm_transformer model"):
        make(
            {"kind": "image_transformer", "image_shape": (4, 4, 1), "classes": 3, "patch_size": 2}
            | {"layers": 1, "channels": 8, "heads": 2}
        )


def test_a_missing_tokeniser_names_the_command():
    pytest.importorskip("sentencepiece")
    with pytest.raises(FileNotFoundError, match=r"python -m data\.prepare sentencepiece"):
        make(tokenizer="nowhere.model")
