"""The task of sentence embeddings: every objective, its evaluation, and where a run starts from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import perceiver
from configs import sentences as configs
from data import DatasetInfo
from perceiver.weights import mapping, native
from tests.train import runs
from train import evaluate, step, tasks
from train.guard.broken_examples import BrokenExamples
from train.objective import retrieval, sentence_losses
from train.run import init_from
from train.run import trained_model as restoring
from train.tasks import sentences

MODEL = {
    "kind": "sentence_encoder",
    "max_length": 13,
    "embedding_channels": 6,
    "latents": 5,
    "latent_channels": 8,
    "layers": 1,
    "cross_heads": 2,
    "cross_qk_channels": 4,
    "cross_v_channels": 8,
    "self_heads": 2,
    "query_heads": 2,
    "query_qk_channels": 4,
    "classes": 3,
}
FACTS = {
    "classification": {"labels": ("yes", "no", "perhaps"), "texts": 2},
    "cosine": {"labels": ("score",), "texts": 2},
    "triplet": {"labels": None, "texts": 3},
    "negatives": {"labels": None, "texts": 2},
}


def make(objective, **fields):
    config = configs.get_config("embedded,smoke")
    config.model.update(MODEL)
    config.data.seq_len = 13
    config.loss.objective = objective
    config.update_from_flattened_dict(fields)
    facts = DatasetInfo(name="drawn", examples={"train": 99, "validation": 7}, **FACTS[objective])
    return tasks.make(config, facts)


def draw(rng, objective, batch=7, length=11):
    texts, names = FACTS[objective]["texts"], sentences._INPUTS
    found = {}
    for tokens, mask in zip(names[: 2 * texts : 2], names[1 : 2 * texts : 2], strict=True):
        found[tokens] = rng.integers(6, 262, (batch, length), np.int32)
        found[mask] = np.arange(length)[None] < rng.integers(1, length + 1, (batch, 1))
    if objective == "classification":
        found["label"] = rng.integers(0, 3, batch, np.int32)
    if objective == "cosine":
        found["label"] = rng.random(batch).astype(np.float32)
    found["mask"] = np.array([True] * (batch - 1) + [False])
    if "label" in found:
        found["label"][-1] = 77  # of no example
    return found


@pytest.fixture(scope="module")
def found():
    """Sums, predictions and gradients of every objective, compiled as one program."""
    made = {objective: make(objective) for objective in sentences.OBJECTIVES}
    params, state = jax.jit(made["cosine"].model.init)(jax.random.key(0))
    batches = {o: draw(np.random.default_rng(3), o) for o in made}

    def all_of_them(params, batches):
        def of(task, batch):
            def loss(params):
                sums, _ = task.loss(params, state, None, batch, is_training=True)
                return sums["loss"][0]

            return (*task.predict(params, state, batch), jax.grad(loss)(params))

        return {o: of(made[o], batches[o]) for o in made}

    return made, batches, jax.device_get(jax.jit(all_of_them)(params, batches))


@pytest.mark.parametrize("objective", FACTS)
def test_sums_are_those_of_the_real_examples(objective, found):
    _, batches, results = found
    (sums, kept, grads), batch = results[objective], batches[objective]
    u, v = kept["embedding"], kept["embedding_b"]
    mask = batch["mask"]
    if objective == "cosine":
        each = sentence_losses.cosine_error(u, v, batch["label"])
    elif objective == "triplet":
        each = sentence_losses.triplet(u, v, kept["embedding_c"], margin=1.0)
    elif objective == "negatives":
        each = sentence_losses.in_batch_negatives(u, v, mask, temperature=0.05)
    else:
        assert 0 < sums["loss"][0] / 6 < 3  # from three classes' log 3
        each = None
    assert sums["loss"][1] == 6
    if each is not None:
        assert sums["loss"][0] == pytest.approx(float(each[mask].sum()), rel=1e-4)
    assert ("accuracy" in sums) == (objective != "cosine")
    flat = mapping.flatten(grads)
    assert all(np.isfinite(g).all() for g in flat.values())
    assert np.abs(flat["embedding/table"]).max() > 0
    # only where pairs are classified do the weights of pairs learn
    moved = np.abs(flat["outputs/pair/w"]).max() > 0
    assert moved == (objective == "classification")


@pytest.mark.parametrize("objective", FACTS)
def test_a_whole_split_is_assessed(objective, found):
    made, batches, results = found
    kept = {name: x[batches[objective]["mask"]] for name, x in results[objective][1].items()}
    scores, files = made[objective].assess(kept, None)
    assert files == {}
    u, v = (kept[name].astype(np.float64) for name in ("embedding", "embedding_b"))
    cosine = (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
    if objective == "cosine":
        expected = scipy.stats.spearmanr(cosine, kept["label"]).statistic
        assert scores["spearman"] == pytest.approx(expected)
        assert scores["pearson"] == pytest.approx(
            scipy.stats.pearsonr(cosine, kept["label"]).statistic
        )
    elif objective == "triplet":
        w = kept["embedding_c"].astype(np.float64)
        nearer = np.linalg.norm(u - v, axis=1) < np.linalg.norm(u - w, axis=1)
        assert scores["accuracy"] == pytest.approx(nearer.mean())
    elif objective == "negatives":
        assert scores == retrieval.summary(retrieval.ranks(u, v))
    references = made[objective].references([batches[objective]])
    if objective == "classification":
        labels = batches[objective]["label"][:6]
        assert references == {"majority/accuracy": np.bincount(labels).max() / 6}
    if objective == "negatives":
        assert references["chance/recall_1"] == pytest.approx(1 / 7)


def test_scores_that_never_vary_have_no_correlation():
    same = np.ones((5, 3))
    predictions = {"embedding": same, "embedding_b": same, "label": np.arange(5) / 5}
    assert sentences.assess_embeddings(predictions, "cosine") == {"pearson": 0, "spearman": 0}


@pytest.mark.parametrize(
    ("objective", "fields", "message"),
    [
        ("cosine", {"loss.objective": "classification"}, "2 texts and classes .* has 2 and scores"),
        ("triplet", {"loss.objective": "negatives"}, "needs 2 texts and no labels.* has 3"),
        ("negatives", {"loss.objective": "contrast"}, "'contrast' is unknown; choose one of"),
        ("negatives", {"loss.temperature": 0.0}, r"loss\.temperature=0\.0 must be above 0"),
        ("classification", {"model.classes": 5}, r"set model\.classes=3"),
        ("cosine", {"model.pooling": "cls"}, "longer than the 12 tokens"),  # and [CLS]
        ("cosine", {"model.vocabulary": 7}, r"set model\.vocabulary=262"),
    ],
)
def test_what_does_not_fit_is_refused(objective, fields, message):
    with pytest.raises(ValueError, match=message):
        make(objective, **fields)


def test_a_language_models_encoder_is_where_it_starts():
    fields = {k: v for k, v in MODEL.items() if k not in ("classes", "kind")}
    language = perceiver.build(fields | {"kind": "masked_lm"})
    draws = np.random.default_rng(5)
    params, state = jax.tree.map(
        lambda x: draws.standard_normal(x.shape).astype(x.dtype),
        jax.eval_shape(language.init, jax.random.key(0)),
    )
    saved = native.Saved(language, params, state, {})
    for pooling, ignore in (("mean", configs.HEAD), ("latent", ("outputs/b", "outputs/queries"))):
        spec = perceiver.build(MODEL | {"pooling": pooling, "classes": 0}).spec
        shapes = jax.eval_shape(perceiver.build(spec).init, jax.random.key(0))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        fresh = step.TrainState(0, *zeros, opt_state=(), ema=None)
        filled, _ = init_from.fit(saved, spec, fresh, "language", ignore)
        kept, theirs = mapping.flatten(filled), mapping.flatten(params)
        taken = {key for key in kept if kept[key] is theirs.get(key)}
        left = {key for key in kept if key not in taken}
        assert len(taken) > 10
        assert left == ({"outputs/queries/table"} if pooling == "latent" else set())
        assert any("decoder" in key for key in taken) == (pooling == "latent")


def test_it_is_trained_and_finds_its_partners(trained):
    """The whole way: train, restore, embed a split, rank."""
    folder = trained("sentences")
    logged = runs.results(folder)
    assert np.isfinite(logged["loss"])
    made = restoring.from_run(folder)
    broken = BrokenExamples(print)
    scores, _ = evaluate.assess(made, None, broken)
    _, found = evaluate.predict(made.experiment, made.state, broken)
    assert len(found["embedding"]) == made.experiment.info.examples["validation"]
    assert scores["loss"] == pytest.approx(logged["loss"], rel=1e-5)
    u, v = (found[name].astype(np.float64) for name in ("embedding", "embedding_b"))
    assert retrieval.summary(retrieval.ranks(u, v)).items() <= scores.items()
    model = perceiver.load(folder)
    assert model.embed(["one text", "another", "a third"]).shape == (3, 32)
    assert dataclasses.asdict(model.spec)["pooling"] == "mean"
