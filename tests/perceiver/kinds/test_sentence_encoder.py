"""Sentence encoders: pooling, pairs, shared weights with a language model, use."""

import haiku as hk
import jax
import numpy as np
import pytest

import perceiver
from perceiver.kinds import specs
from perceiver.kinds.builders import KINDS
from perceiver.outputs.sentence import SentenceEmbedding
from perceiver.pretrained.pretrained import Pretrained
from perceiver.text import sequences, tokenizer
from perceiver.weights import mapping

CLOSE = 1e-5
ENCODER = {
    "max_length": 23,
    "embedding_channels": 12,
    "latents": 5,
    "latent_channels": 8,
    "layers": 1,
    "cross_heads": 2,
    "cross_qk_channels": 6,
    "cross_v_channels": 10,
    "self_heads": 2,
    "query_heads": 3,
    "query_qk_channels": 9,
}
SPEC = ENCODER | {"kind": "sentence_encoder"}


def shapes(spec):
    model = perceiver.build(spec)
    return mapping.flatten(jax.eval_shape(model.init, jax.random.key(0))[0])


def pair(rng, batch=3, length=11):
    """Two texts each, of several lengths."""
    sizes = np.array([[length], [7], [2]])[:batch]
    places = np.arange(length)[None]
    return {
        "tokens": rng.integers(6, 262, (batch, length), np.int32),
        "input_mask": places < sizes,
        "tokens_b": rng.integers(6, 262, (batch, length), np.int32),
        "mask_b": places < sizes[::-1],
    }


def swapped(inputs):
    names = {"tokens": "tokens_b", "input_mask": "mask_b"}
    return {a: inputs[b] for a, b in (names | {b: a for a, b in names.items()}).items()}


# Pooling, of features and a mask.


def pool(pooling, features, mask, **options):
    head = hk.transform(
        lambda x, mask: SentenceEmbedding(
            pooling=pooling, classes=0, channels=6, heads=2, qk_channels=4, name="outputs"
        )(x, latent_mask=mask, **options)
    )
    params = head.init(jax.random.key(1), features, mask)
    return head.apply(params, None, features, mask)["embedding"]


@pytest.mark.parametrize(("pooling", "reduce"), [("mean", np.mean), ("max", np.max)])
def test_what_is_masked_is_not_pooled(pooling, reduce, rng):
    x = rng.normal(size=(3, 7, 5)).astype(np.float32) - 3  # no zero is the highest
    mask = np.arange(7)[None] < np.array([[7], [4], [1]])
    expected = [reduce(rows[real], axis=0) for rows, real in zip(x, mask, strict=True)]
    np.testing.assert_allclose(pool(pooling, x, mask), expected, atol=CLOSE)
    np.testing.assert_allclose(pool(pooling, x, None), reduce(x, axis=1), atol=CLOSE)
    mask[1] = False  # a row that fills up a batch
    assert (pool(pooling, x, mask)[1] == 0).all()


def test_a_learned_query_does_not_see_what_is_masked(rng):
    x = rng.normal(size=(3, 7, 8)).astype(np.float32)
    mask = np.arange(7)[None] < np.array([[7], [4], [1]])
    found = pool("latent", x, mask)
    assert found.shape == (3, 6)
    again = pool("latent", np.where(mask[..., None], x, 9.0), mask)
    np.testing.assert_allclose(again, found, atol=CLOSE)
    whole = pool("latent", x, None)
    np.testing.assert_allclose(whole[0], found[0], atol=CLOSE)
    assert np.abs(whole - found)[1:].max() > 1e-2


def test_cls_is_the_first_feature(rng):
    x = rng.normal(size=(3, 7, 5)).astype(np.float32)
    np.testing.assert_array_equal(pool("cls", x, None), x[:, 0])


# Whole models.


def test_the_encoder_is_a_language_models():
    language = shapes(ENCODER | {"kind": "masked_lm"})
    inside = {key for key in language if not key.startswith("outputs/")}
    decoder = {key for key in language if key.startswith("outputs/decoder/")}
    found = {p: shapes(SPEC | {"pooling": p, "classes": 7}) for p in specs.POOLINGS}
    for pooling, ours in found.items():
        common = inside | (decoder if pooling == "latent" else set())
        assert {k: ours[k].shape for k in common} == {k: language[k].shape for k in common}
        others = {key: x.shape for key, x in ours.items() if key not in common}
        width = 12 if pooling == "latent" else 8
        query = {"outputs/queries/table": (1, 12)} if pooling == "latent" else {}
        assert others == {"outputs/pair/w": (3 * width, 7)} | query
    assert "outputs/pair/w" not in shapes(SPEC)


@pytest.fixture(scope="module", params=["perceiver mean", "transformer latent"])
def drawn(request, draw_saved):
    """A model with weights that are far from zero everywhere, and its compiled `apply`."""
    body, pooling = request.param.split()
    saved = draw_saved(SPEC | {"body": body, "pooling": pooling, "classes": 7})
    return saved, jax.jit(saved.model.apply)


def test_both_texts_meet_the_same_weights(drawn, rng):
    saved, apply = drawn
    params, state = saved.params, saved.state
    inputs = pair(rng)
    there, _ = apply(params, state, None, inputs)
    back, _ = apply(params, state, None, swapped(inputs))
    np.testing.assert_allclose(there["embedding"], back["embedding_b"], atol=CLOSE)
    np.testing.assert_allclose(there["embedding_b"], back["embedding"], atol=CLOSE)
    # softmax(W (u, v, |u - v|)), without bias
    u, v = (np.asarray(there[name], np.float64) for name in ("embedding", "embedding_b"))
    w = np.asarray(params["outputs/pair"]["w"], np.float64)
    expected = np.concatenate([u, v, np.abs(u - v)], axis=1) @ w
    np.testing.assert_allclose(there["logits"], expected, atol=10 * CLOSE)  # sums of 24 or 36
    # what is padding has no say
    real = {"tokens": "input_mask", "tokens_b": "mask_b"}
    other = {name: np.where(inputs[mask], inputs[name], 100) for name, mask in real.items()}
    again, _ = apply(params, state, None, inputs | other)
    np.testing.assert_allclose(again["logits"], there["logits"], atol=10 * CLOSE)
    assert np.abs(u - v).max() > 1e-2


def test_one_text_two_or_three(drawn, rng):
    saved, _ = drawn
    inputs = pair(rng) | {"tokens_c": np.full((3, 11), 77, np.int32), "mask_c": pair(rng)["mask_b"]}

    def outputs(*names):
        given = {name: inputs[name] for name in names}
        found = jax.eval_shape(lambda x: saved.model.apply(saved.params, {}, None, x)[0], given)
        return {name: x.shape[0] for name, x in found.items()}

    one, two, three = ("tokens", "input_mask"), ("tokens_b", "mask_b"), ("tokens_c", "mask_c")
    assert outputs(*one) == {"embedding": 3}
    assert outputs(*one, *two) == {"embedding": 3, "embedding_b": 3, "logits": 3}
    assert outputs(*one, *two, *three) == dict.fromkeys(
        ("embedding", "embedding_b", "embedding_c"), 3
    )
    with pytest.raises(ValueError, match="tokens_c needs tokens_c, mask_c and the texts before"):
        outputs(*one, *three)
    with pytest.raises(ValueError, match="mask_b needs tokens_b, mask_b"):
        outputs(*one, "mask_b")
    inputs["tokens_b"], inputs["mask_b"] = inputs["tokens_b"][:, 1:], inputs["mask_b"][:, 1:]
    with pytest.raises(ValueError, match="pad the texts of a pair to one length"):
        outputs(*one, *two)


def test_cls_stands_before_the_text(rng):
    """The same byte array as of a model without it that is given the token by hand."""
    given, token = pair(rng), {"tokens": tokenizer.CLS, "tokens_b": tokenizer.CLS}
    by_hand = {
        name: np.pad(x, ((0, 0), (1, 0)), constant_values=token.get(name, True))
        for name, x in given.items()
    }
    model = perceiver.build(SPEC | {"pooling": "cls"})

    def byte_array(spec, inputs):
        parts = KINDS["sentence_encoder"].parts(specs.parse(spec))
        found = parts.preprocess(inputs, is_training=False)
        return found.dense(), found.mask

    preprocess = hk.transform(byte_array)
    params = preprocess.init(jax.random.key(0), model.spec, given)
    found = preprocess.apply(params, None, model.spec, given)
    assert found[0].shape == (6, 12, 12)  # three pairs
    expected = preprocess.apply(params, None, SPEC, by_hand)
    np.testing.assert_allclose(found[0], expected[0], atol=CLOSE)
    np.testing.assert_array_equal(found[1], expected[1])
    assert model.example_inputs(2)["tokens"].shape == (2, 22)
    with pytest.raises(ValueError, match="truncate it to 22"):
        model.check({name: np.repeat(x, 3, axis=1)[:, :23] for name, x in given.items()})


# Use.


@pytest.fixture(scope="module")
def encoder(draw_saved):
    saved = draw_saved(SPEC | {"max_length": 67, "classes": 3})
    return Pretrained(saved.model, saved.params, saved.state, saved.usage)


def test_texts_are_embedded_in_their_order(encoder):
    texts = ["short", "ä" * 500, b"longer " * 9, "ä" * 33]
    found = encoder.embed(texts)
    assert (found.shape, found.dtype) == ((4, 8), np.float32)
    ids, mask = sequences.pad([tokenizer.encode(x) for x in (texts[0], texts[2])], 64)
    by_hand = encoder({"tokens": ids, "input_mask": mask})["embedding"]
    np.testing.assert_allclose(found[[0, 2]], by_hand, atol=CLOSE)
    # too long, and cut between two characters: 33 of two bytes fit into 67
    np.testing.assert_allclose(found[1], found[3], atol=CLOSE)
    np.testing.assert_allclose(encoder.embed(texts[::-1]), found[::-1], atol=CLOSE)
    assert np.abs(found[0] - found[2]).max() > 1e-4


def test_texts_are_compared(encoder):
    (one, two) = encoder.compare(["a text", "a text"], ["a text", "another"], top_k=3)
    assert one.cosine == pytest.approx(1, abs=CLOSE)
    u, v = encoder.embed(["a text", "another"]).astype(np.float64)
    assert two.cosine == pytest.approx(
        u @ v / np.linalg.norm(u) / np.linalg.norm(v), abs=10 * CLOSE
    )
    assert {label for label, _ in two.labels} == {"class 0", "class 1", "class 2"}
    assert sum(share for _, share in two.labels) == pytest.approx(1)


def test_what_cannot_be_embedded_is_named(encoder):
    with pytest.raises(ValueError, match="text 1 is empty"):
        encoder.embed(["one", ""])
    with pytest.raises(ValueError, match="nothing in the list: give at least one"):
        encoder.embed([])
    with pytest.raises(ValueError, match="2 first texts but 1 second"):
        encoder.compare(["a", "b"], ["c"])
