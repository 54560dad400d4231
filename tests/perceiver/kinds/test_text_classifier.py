"""Text classifiers: shapes, shared weights with a language model, several tasks, use."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver
from perceiver.kinds import specs
from perceiver.text import sequences, tokenizer
from perceiver.weights import mapping

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
ONE = ENCODER | {"kind": "text_classifier", "classes": 7}
SEVERAL = ENCODER | {
    "kind": "text_classifier",
    "classes": 8,
    "tasks": ("first", "second", "third"),
    "task_classes": (2, 1, 5),
}
FORMS = {"one": ONE, **{form: SEVERAL | {"multitask": form} for form in specs.MULTITASK}}


def shapes(spec):
    model = perceiver.build(spec)
    return mapping.flatten(jax.eval_shape(model.init, jax.random.key(0))[0])


def draw(rng, spec, batch=3, length=11):
    parsed = specs.parse(spec)
    mask = np.arange(length)[None] < np.array([[length], [7], [2]])[:batch]
    inputs = {"tokens": rng.integers(6, 262, (batch, length), np.int32), "input_mask": mask}
    if "task" in perceiver.build(parsed).example_inputs(1):
        inputs["task"] = np.array([2, 0, 1], np.int32)[:batch]
    return inputs


@pytest.fixture(scope="module")
def drawn(draw_saved):
    """A form's model with weights far from zero, and its compiled `apply`: drawn(form)."""

    @functools.cache
    def drawn(form):
        saved = draw_saved(FORMS[form])
        return saved.model, saved.params, jax.jit(saved.model.apply)

    return drawn


def test_the_encoder_is_a_language_models():
    language = shapes(ENCODER | {"kind": "masked_lm"})
    ours = shapes(ONE)
    inside = {key for key in language if not key.startswith("outputs/")}
    decoder = {key for key in language if key.startswith("outputs/decoder/")}
    assert len(inside) > 10
    assert len(decoder) > 10
    assert {key: ours[key].shape for key in inside | decoder} == {
        key: language[key].shape for key in inside | decoder
    }
    others = {key: x.shape for key, x in ours.items() if key not in inside | decoder}
    assert others == {
        "outputs/queries/table": (1, 12),
        "outputs/head/hidden/w": (12, 12),
        "outputs/head/hidden/b": (12,),
        "outputs/head/out/w": (12, 7),
        "outputs/head/out/b": (7,),
    }


@pytest.mark.parametrize("form", FORMS)
def test_padding_is_not_seen(form, drawn, rng):
    model, params, apply = drawn(form)
    inputs = draw(rng, model.spec)
    logits, _ = apply(params, {}, None, inputs)
    assert logits.shape == (3, model.spec.classes)
    other = np.where(inputs["input_mask"], inputs["tokens"], 100)
    again, _ = apply(params, {}, None, inputs | {"tokens": other})
    np.testing.assert_allclose(again, logits, atol=1e-5)
    seen = np.where(inputs["input_mask"], 100, inputs["tokens"])
    changed, _ = apply(params, {}, None, inputs | {"tokens": seen})
    assert np.abs(changed - logits).max() > 1e-3


@pytest.mark.parametrize("form", ["one", "query", "shared_token"])
def test_decoding_latents_is_the_same(form, drawn, rng):
    model, params, apply = drawn(form)
    inputs = draw(rng, model.spec)

    @jax.jit
    def by_latents(params, inputs):
        latents = model.encode(params, {}, inputs)
        queries = model.queries(params, {}, latents, {})
        rows = model.decode_queries(params, {}, latents, queries)
        return model.decode(params, {}, latents, {}), rows

    logits, _ = apply(params, {}, None, inputs)
    decoded, rows = by_latents(params, inputs)
    np.testing.assert_allclose(decoded, logits, atol=1e-5)
    for name, columns in model.spec.columns.items():
        np.testing.assert_allclose(rows[name or "logits"][:, 0], logits[:, columns], atol=1e-5)


def test_the_head_is_two_layers_with_tanh(drawn, rng):
    _, params, apply = drawn("one")
    flat = mapping.flatten(params)
    # without hidden weights only the last bias is left
    silent = flat | {"outputs/head/hidden/w": jnp.zeros((12, 12))}
    silent |= {"outputs/head/hidden/b": jnp.full(12, 0.7)}
    logits, _ = apply(mapping.unflatten(silent), {}, None, draw(rng, ONE))
    w, b = (np.asarray(flat[f"outputs/head/out/{name}"], np.float64) for name in "wb")
    np.testing.assert_allclose(logits[0], np.tanh(np.full(12, 0.7)) @ w + b, atol=1e-6)


def test_a_task_token_changes_the_answer(drawn, rng):
    model, params, apply = drawn("task_tokens")
    inputs = draw(rng, FORMS["task_tokens"])
    logits, _ = apply(params, {}, None, inputs)
    other, _ = apply(params, {}, None, inputs | {"task": np.array([0, 0, 1], np.int32)})
    np.testing.assert_allclose(other[1:], logits[1:], atol=1e-6)
    assert np.abs(other[0] - logits[0]).max() > 1e-5
    with pytest.raises(ValueError, match=r"task 3 is not in 0\.\.2"):
        model.apply(params, {}, None, inputs | {"task": np.array([0, 3, 1], np.int32)})


def test_a_shared_token_is_cls_before_the_text(drawn, rng):
    """The same as a model of one task that is given the token by hand."""
    several, params, apply = drawn("shared_token")
    inputs = draw(rng, FORMS["shared_token"])
    logits, _ = apply(params, {}, None, inputs)
    flat = mapping.flatten(params)
    for task, classes in several.spec.heads[1:]:
        one = perceiver.build(ONE | {"classes": classes})
        own = {key: x for key, x in flat.items() if "/head_" not in key}
        for key, x in flat.items():
            if f"/head_{task}/" in key:
                own[key.replace(f"head_{task}", "head")] = x
        tokens = np.pad(inputs["tokens"], ((0, 0), (1, 0)), constant_values=tokenizer.CLS)
        mask = np.pad(inputs["input_mask"], ((0, 0), (1, 0)), constant_values=True)
        given = {"tokens": tokens, "input_mask": mask}
        alone, _ = jax.jit(one.apply)(mapping.unflatten(own), {}, None, given)
        np.testing.assert_allclose(alone, logits[:, several.spec.columns[task]], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_classes": (2, 1)}, "must be the classes of each"),
        ({"classes": 7}, "must be 8, those of all tasks"),
        ({"tasks": ("first", "first", "third")}, "must be different words"),
        ({"multitask": "tokens"}, "choose one of query, shared_token, task_tokens"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        specs.parse(SEVERAL | changes)


def test_a_text_must_leave_place_for_the_token(rng):
    model = perceiver.build(FORMS["shared_token"])
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    with pytest.raises(ValueError, match="truncate it to 22"):
        model.apply(params, state, None, draw(rng, FORMS["shared_token"], length=23))


# Use.


def test_texts_and_pairs_are_classified(draw_model):
    model = draw_model(ONE)
    found = model.classify(["one", ("one", "two"), b"three"], top_k=3)
    assert [len(rows) for rows in found] == [3, 3, 3]
    (best, share), *_ = model.classify(("one", "two"), top_k=3)
    assert best == found[1][0][0]
    assert share == pytest.approx(found[1][0][1], rel=1e-5)
    texts = [tokenizer.encode(given) for given in ("one", "one\0two", "three")]
    texts = [np.where(ids == tokenizer.OFFSET, tokenizer.SEP, ids) for ids in texts]
    tokens, mask = sequences.pad(texts, 7)
    for rows, logits in zip(found, model({"tokens": tokens, "input_mask": mask}), strict=True):
        shares = np.exp(logits) / np.exp(logits).sum()
        assert rows[0][0] == f"class {logits.argmax()}"
        assert rows[0][1] == pytest.approx(shares.max(), rel=1e-4)


@pytest.mark.parametrize("form", ["query", "task_tokens"])
def test_a_task_is_asked_by_its_name(form, draw_model):
    model = draw_model(SEVERAL | {"multitask": form})
    model.usage["labels"][3:] = [f"third: {word}" for word in "abcde"]
    assert {label for label, _ in model.classify("text", task="third")} == set("abcde")
    ((label, number),) = model.classify("text", task="second")
    assert (label, type(number)) == ("class 2", float)
    with pytest.raises(ValueError, match="one of first, second, third"):
        model.classify("text")


def test_an_empty_text_is_named(draw_model):
    with pytest.raises(ValueError, match="text 1 is empty"):
        draw_model(ONE).classify(["one", ("", "two")])


# Rows of ids.


def ids(text):
    return tokenizer.encode(text)


def test_a_pair_has_one_separator():
    joined = sequences.join([ids("abc"), ids("de")], 31)
    assert joined.tolist() == [*ids("abc"), tokenizer.SEP, *ids("de")]
    assert sequences.join([ids("abc")], 2).tolist() == ids("ab").tolist()


@pytest.mark.parametrize(
    ("lengths", "room", "kept"),
    [((10, 3), 9, (5, 3)), ((3, 10), 9, (3, 5)), ((10, 11), 9, (4, 4)), ((2, 2), 9, (2, 2))],
)
def test_the_longer_text_is_cut_first(lengths, room, kept):
    joined = sequences.join([ids("a" * lengths[0]), ids("b" * lengths[1])], room)
    counts = [int((joined == ids(letter)[0]).sum()) for letter in "ab"]
    assert tuple(counts) == kept
    assert len(joined) <= room


@pytest.mark.parametrize("text", ["häßlich", "中文句子", "a👩‍👩‍👧b", "плохо"])
def test_a_character_is_never_cut(text):
    data = text.encode()
    for length in range(1, len(data) + 2):
        kept = sequences.join([ids(text)], length)
        assert text.startswith(tokenizer.decode(kept))
        assert length - 4 < len(kept) <= length or len(kept) == len(data)


def test_rows_are_padded():
    tokens, mask = sequences.pad([ids("ab"), ids("c")], 3)
    assert tokens.tolist() == [[103, 104, 0], [105, 0, 0]]
    assert mask.tolist() == [[True, True, False], [True, False, False]]
