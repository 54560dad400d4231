"""The public face: build, init, apply; and what it says to wrong inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver

TOLERANCE = 1e-5


def initial(model):
    return jax.jit(model.init)(jax.random.key(0))


@pytest.fixture
def image_model(image_spec):
    return perceiver.build(image_spec)


@pytest.fixture
def text_model(text_spec):
    return perceiver.build(text_spec)


def text(rng, batch=2, length=11):
    tokens = rng.integers(0, 262, (batch, length)).astype(np.int32)
    return {"tokens": tokens, "input_mask": np.ones((batch, length), bool)}


def test_example_inputs_are_what_apply_takes(image_model, text_model):
    image, text = image_model.example_inputs(3), text_model.example_inputs(3)
    assert {k: (x.shape, x.dtype) for k, x in image.items()} == {
        "image": ((3, 5, 7, 3), jnp.float32)
    }
    assert {k: (x.shape, x.dtype) for k, x in text.items()} == {
        "tokens": ((3, 17), jnp.int32),
        "input_mask": ((3, 17), jnp.bool_),
    }
    for model, inputs, shape in ((image_model, image, (3, 11)), (text_model, text, (3, 17, 262))):
        params, state = jax.eval_shape(model.init, jax.random.key(0))
        outputs, _ = jax.eval_shape(
            lambda p, s, x, model=model: model.apply(p, s, None, x), params, state, inputs
        )
        assert (outputs.shape, outputs.dtype) == (shape, jnp.float32)


@pytest.mark.parametrize(
    ("stem", "positions", "head"),
    [
        ("pixels", "fourier", "query"),
        ("pixels", "learned", "mean"),
        ("conv1x1", "learned", "query"),
        ("conv1x1", "fourier", "mean"),
        ("conv", "fourier", "mean"),
        ("conv", "learned", "query"),
    ],
)
def test_every_two_image_parts_fit(image_spec, stem, positions, head):
    choice = {"stem": stem, "positions": positions, "head": head, "stem_channels": 5}
    model = perceiver.build({**image_spec, **choice, "position_channels": 4})
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    assert bool(state) == (stem == "conv")
    outputs, _ = jax.eval_shape(
        lambda p, s, x: model.apply(p, s, None, x), params, state, model.example_inputs(3)
    )
    assert outputs.shape == (3, 11)


def test_init_depends_on_the_key_alone_and_a_classifier_of_means_starts_undecided(image_spec, rng):
    model = perceiver.build({**image_spec, "head": "mean"})
    init = jax.jit(model.init)
    (first, state), (again, _), (other, _) = (init(jax.random.key(seed)) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["latents"]["table"], other["latents"]["table"])
    image = rng.standard_normal((2, 5, 7, 3)).astype(np.float32)
    logits, _ = jax.jit(model.apply)(first, state, None, {"image": image})
    np.testing.assert_array_equal(logits, np.zeros((2, 11)))


def test_the_batch_size_is_free(image_model, draw_params, rng):
    params = draw_params(image_model.init)
    image = rng.standard_normal((3, 5, 7, 3)).astype(np.float32)
    apply = jax.jit(image_model.apply)
    all_at_once, _ = apply(params, {}, None, {"image": image})
    alone, _ = apply(params, {}, None, {"image": image[:1]})
    np.testing.assert_allclose(alone, all_at_once[:1], atol=TOLERANCE)


@pytest.mark.parametrize("length", [1, 5, 17])
def test_sequences_may_be_short(text_model, length, rng):
    params, state = jax.eval_shape(text_model.init, jax.random.key(0))
    outputs, _ = jax.eval_shape(
        lambda p, s, x: text_model.apply(p, s, None, x), params, state, text(rng, 2, length)
    )
    assert outputs.shape == (2, length, 262)


def test_an_example_without_a_real_token_gives_finite_logits(text_model, draw_params, rng):
    inputs = text(rng)
    inputs["input_mask"][1] = False
    params = draw_params(text_model.init)
    total = jax.jit(jax.value_and_grad(lambda p: text_model.apply(p, {}, None, inputs)[0].sum()))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(total(params)))


def test_latents_and_maps_have_the_shapes_said(image_spec, draw_params, rng):
    model = perceiver.build({**image_spec, "encoders": (0, 1), "processors": (0, 0)})
    params = draw_params(model.init)
    inputs = {"image": rng.standard_normal((2, 5, 7, 3)).astype(np.float32)}
    latents = jax.eval_shape(model.encode, params, {}, inputs)
    assert latents.shape == (2, 13, 8)
    maps = jax.jit(model.attention_maps)(params, {}, inputs)
    assert [m.shape for m in maps] == [(2, 1, 13, 35)] * 2
    np.testing.assert_allclose([m.sum(-1) for m in maps], 1, atol=TOLERANCE)


@pytest.mark.parametrize("head", ["query", "mean"])
def test_a_classifier_decodes_what_it_encoded(head, image_spec, draw_params, rng):
    model = perceiver.build({**image_spec, "head": head})
    params = draw_params(model.init)
    inputs = {"image": rng.standard_normal((2, 5, 7, 3)).astype(np.float32)}

    @jax.jit
    def run(params, inputs):
        expected, _ = model.apply(params, {}, None, inputs)
        latents = model.encode(params, {}, inputs)
        queries = model.queries(params, {}, latents, {})
        rows = model.decode_queries(params, {}, latents, queries)
        return expected, model.decode(params, {}, latents, {}), rows

    expected, decoded, rows = run(params, inputs)
    np.testing.assert_allclose(decoded, expected, atol=TOLERANCE)
    assert list(rows) == ([] if head == "mean" else ["logits"])
    for x in rows.values():
        np.testing.assert_allclose(x, expected[:, None], atol=TOLERANCE)
    assert list(model.explain()) == ["stage 1", *(["decoder"] if head == "query" else [])]


def test_the_mean_of_latents_answers_no_queries(image_spec, draw_params):
    model = perceiver.build({**image_spec, "head": "mean"})
    params = draw_params(model.init)
    with pytest.raises(ValueError, match=r"takes no queries, got \['logits'\]"):
        model.decode_queries(params, {}, np.zeros((2, 13, 8), np.float32), {"logits": None})


def test_a_language_model_decodes_what_it_encoded(text_model, draw_params, rng):
    params, inputs = draw_params(text_model.init), text(rng)
    inputs["input_mask"][1, 6:] = False
    mask = {"input_mask": inputs["input_mask"]}  # the tokens themselves are not needed

    @jax.jit
    def run(params, inputs):
        expected, _ = text_model.apply(params, {}, None, inputs)
        latents = text_model.encode(params, {}, inputs)
        return expected, latents, text_model.decode(params, {}, latents, mask)

    expected, latents, decoded = run(params, inputs)
    np.testing.assert_allclose(decoded, expected, atol=TOLERANCE)
    queries, decode = text_model.queries(params, {}, latents, mask), text_model.decode_queries
    rows = perceiver.decode_to_host(
        jax.jit(lambda piece: decode(params, {}, latents, {"logits": piece})["logits"]),
        queries["logits"],
        at_once=6,
    )
    np.testing.assert_allclose(rows, expected, atol=TOLERANCE)
    with pytest.raises(ValueError, match=r"decoding needs 'input_mask' \[batch, length\]"):
        text_model.decode(params, {}, latents, {})
    long = {"input_mask": np.ones((2, 18), bool)}
    with pytest.raises(ValueError, match=r"\(2, 18\) is longer than the model's 17 positions"):
        text_model.queries(params, {}, latents, long)


class TestBatchNorm:
    @pytest.fixture
    def model(self, image_spec):
        changes = {"stem": "conv", "stem_channels": 5, "head": "mean", "layers": 1, "blocks": 1}
        return perceiver.build(image_spec | changes)

    def test_training_updates_the_averages_and_evaluation_uses_them(self, model, draw_params, rng):
        _, state = initial(model)
        assert state
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(state))  # init takes no average
        params = draw_params(model.init)
        image = rng.standard_normal((3, 5, 7, 3)).astype(np.float32) * 2 + 1
        train = jax.jit(lambda s, x: model.apply(params, s, None, {"image": x}, is_training=True))
        evaluate = jax.jit(lambda s, x: model.apply(params, s, None, {"image": x}))

        def hidden(state, what):
            return state[f"inputs/stem/batch_norm/~/{what}_ema"]

        trained, after = train(state, image)
        assert hidden(after, "mean")["counter"] == 1
        w = params["inputs/stem"]["w"]
        convolved = jax.lax.conv_general_dilated(
            image, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        # after one step, the average corrected for its start is the batch's own
        mean = np.asarray(convolved).mean(axis=(0, 1, 2))
        np.testing.assert_allclose(hidden(after, "mean")["average"].ravel(), mean, atol=1e-4)
        variance = np.asarray(convolved).var(axis=(0, 1, 2))
        np.testing.assert_allclose(hidden(after, "var")["average"].ravel(), variance, rtol=1e-3)

        evaluated, unchanged = evaluate(after, image)
        jax.tree.map(np.testing.assert_array_equal, unchanged, after)
        np.testing.assert_allclose(evaluated, trained, atol=1e-3)  # the averages are this batch's
        moved = jax.tree.map(lambda x: x + 1, after)
        assert np.abs(evaluate(moved, image)[0] - evaluated).max() > 1e-2
        # what an example gets in evaluation does not depend on the rest of its batch
        other = np.concatenate([image[:1], image[1:] + 1])
        np.testing.assert_allclose(evaluate(after, other)[0][:1], evaluated[:1], atol=TOLERANCE)

        _, later = train(after, image + 1)
        assert hidden(later, "mean")["counter"] == 2


IMAGE_ERRORS = [
    ({}, r"image_classifier needs inputs \['image'\], got \[\]"),
    ({"images": np.zeros((2, 5, 7, 3))}, r"needs inputs \['image'\], got \['images'\]"),
    ({"image": np.zeros((5, 7, 3), np.float32)}, r"must be \[batch, 5, 7, 3\], got \(5, 7, 3\)"),
    ({"image": np.zeros((2, 5, 7, 1), np.float32)}, r"5, 7, 3\], got \(2, 5, 7, 1\)"),
    ({"image": np.zeros((2, 7, 5, 3), np.float32)}, r"5, 7, 3\], got \(2, 7, 5, 3\)"),
    ({"image": np.zeros((2, 3, 5, 7), np.float32)}, r"5, 7, 3\], got \(2, 3, 5, 7\)"),
    (
        {"image": np.zeros((2, 5, 7, 3), np.uint8)},
        "images must be floating-point, got uint8; scale",
    ),
]


@pytest.mark.parametrize(("inputs", "message"), IMAGE_ERRORS)
@pytest.mark.parametrize("method", ["apply", "encode", "attention_maps"])
def test_wrong_images_are_refused(image_model, inputs, message, method):
    rng = (None,) if method == "apply" else ()
    with pytest.raises(ValueError, match=message):
        getattr(image_model, method)({}, {}, *rng, inputs)
    with pytest.raises(ValueError, match=message):
        jax.jit(getattr(image_model, method))({}, {}, *rng, inputs)


def change(**changes):
    def apply(inputs):
        return {
            name: value(inputs[name])
            for name, value in {**KEEP, **changes}.items()
            if value is not None
        }

    return apply


KEEP = {"tokens": lambda x: x, "input_mask": lambda x: x}
TEXT_ERRORS = [
    (change(input_mask=None), r"masked_lm needs inputs \['input_mask'\], got \['tokens'\]"),
    (
        change(tokens=lambda x: x[0]),
        r"tokens must be integers \[batch, length\], got int32 \(11,\)",
    ),
    (change(tokens=lambda x: x.astype(np.float32)), "tokens must be integers .* got float32"),
    (change(tokens=lambda x: x > 9), "tokens must be integers .* got bool"),
    (
        change(input_mask=lambda x: x.astype(np.int32)),
        r"input_mask must be bool \(2, 11\) \(True = real\), got int32",
    ),
    (change(input_mask=lambda x: x[:, :5]), r"must be bool \(2, 11\) .* got bool \(2, 5\)"),
    (
        change(tokens=lambda x: np.tile(x, 2), input_mask=lambda x: np.tile(x, 2)),
        "sequence of 22 tokens is longer than the model's 17 positions; cut .* larger max_length",
    ),
]
TOKEN_ERRORS = [
    (change(tokens=lambda x: np.where(x == x[1, 3], 262, x)), r"token 262 at .* outside 0\.\.261"),
    (change(tokens=lambda x: x - 262), r"token -\d+ at \(0, 0\) is outside"),
]


@pytest.mark.parametrize(("change", "message"), TEXT_ERRORS)
def test_wrong_texts_are_refused(text_model, rng, change, message):
    inputs = change(text(rng))
    with pytest.raises(ValueError, match=message):
        text_model.apply({}, {}, None, inputs)
    with pytest.raises(ValueError, match=message):
        jax.jit(text_model.apply)({}, {}, None, inputs)


@pytest.mark.parametrize(("change", "message"), TOKEN_ERRORS)
@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
def test_tokens_out_of_range_are_refused_where_they_are_known(
    text_model, rng, change, message, place
):
    inputs = jax.tree.map(place, change(text(rng)))
    for call in (text_model.encode, text_model.attention_maps):
        with pytest.raises(ValueError, match=message):
            call({}, {}, inputs)
    with pytest.raises(ValueError, match=message):
        text_model.apply({}, {}, None, inputs)


def test_other_entries_of_a_batch_are_ignored(image_model, draw_params, rng):
    """A training batch has labels and a mask beside the image, perhaps names."""
    params = draw_params(image_model.init)
    image = rng.standard_normal((2, 5, 7, 3)).astype(np.float32)
    batch = {"image": image, "label": np.zeros(2, np.int32), "name": ["a", "b"]}
    outputs, _ = jax.eval_shape(lambda p: image_model.apply(p, {}, None, batch), params)
    assert outputs.shape == (2, 11)


def test_heads_that_do_not_divide_the_byte_array_are_named(image_spec):
    model = perceiver.build({**image_spec, "cross_heads": 2})
    message = (
        "encoder/cross_attend/attend/attention/query: 13 channels are not divisible by 2 heads"
    )
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0))


def test_parameters_of_another_model_are_refused(image_model, image_spec, draw_params):
    params = draw_params(perceiver.build({**image_spec, "latent_channels": 4}).init)
    image = np.zeros((2, 5, 7, 3), np.float32)
    with pytest.raises(ValueError, match=r"retrieved shape .* does not match"):
        image_model.apply(params, {}, None, {"image": image})


def test_float64_images_are_cast(image_model):
    image = {"image": np.zeros((2, 5, 7, 3))}
    params = jax.eval_shape(image_model.init, jax.random.key(0))[0]
    outputs, _ = jax.eval_shape(lambda p: image_model.apply(p, {}, None, image), params)
    assert outputs.dtype == jnp.float32


def test_the_text_embedding_is_tied(text_model, draw_params, rng):
    params = draw_params(text_model.init)
    assert sum(leaf.shape == (262, 6) for leaf in jax.tree.leaves(params)) == 1
    inputs = text(rng)
    inputs["tokens"] = np.minimum(inputs["tokens"], 250)  # token 261 is not among the inputs
    scaled = {**params, "embedding": {"table": params["embedding"]["table"].copy()}}
    scaled["embedding"]["table"][261] *= 2
    apply = jax.jit(text_model.apply)
    y, z = (apply(p, {}, None, inputs)[0] - p["outputs"]["b"][None, None] for p in (params, scaled))
    np.testing.assert_allclose(z[..., 261], 2 * y[..., 261], atol=TOLERANCE)
    np.testing.assert_allclose(z[..., :261], y[..., :261], atol=TOLERANCE)


def test_the_exact_gelu_is_computed_along_each_path(text_spec, draw_params):
    tokens = np.arange(34, dtype=np.int32).reshape(2, 17) + 6
    inputs = {"tokens": tokens, "input_mask": np.ones((2, 17), bool)}
    params = draw_params(perceiver.build(text_spec).init)

    def outputs(**changes):
        model = perceiver.build(text_spec | changes)
        return np.asarray(jax.jit(model.apply)(params, {}, None, inputs)[0])

    exact = outputs(activation="gelu_erf")
    tanh = outputs()
    assert 1e-6 < np.abs(exact - tanh).max() / np.abs(exact).max() < 1e-2
    streamed = outputs(activation="gelu_erf", decode_path="streaming", cross_path="streaming")
    np.testing.assert_allclose(streamed, exact, atol=1e-5 * np.abs(exact).max())


def test_a_specs_attention_dropout_reaches_the_attention(image_spec):
    for rate in (0.0, 0.1):
        model = perceiver.build(image_spec | {"attention_dropout_rate": rate})
        plans = [str(model.explain(is_training=x)["stage 1"]) for x in (False, True)]
        needs = ["dropout needs the attention weights" in plan for plan in plans]
        assert needs == [False, rate > 0]


def test_plain_paths_are_differentiated_both_ways(image_spec, rng):
    """Curvature along a direction: forward over reverse equals reverse over reverse."""
    plain = {"kernel": "reference", "cross_path": "plain", "decode_path": "plain"}
    model = perceiver.build(image_spec | plain)
    params, state = jax.jit(model.init)(jax.random.key(0))
    images = rng.standard_normal((2, *image_spec["image_shape"])).astype(np.float32)

    def loss(params):
        logits, _ = model.apply(params, state, None, {"image": images})
        return jnp.square(logits - 1).sum()

    direction = jax.tree.map(jnp.sign, params)
    slope = jax.jit(jax.grad(loss))

    def along(params):
        gradient = jax.grad(loss)(params)
        return sum(map(jnp.vdot, jax.tree.leaves(gradient), jax.tree.leaves(direction)))

    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(loss, (params,), (direction,))
    with pytest.raises(TypeError, match=r"second derivatives .* need `with perceiver.forward_mode"):
        jax.grad(along)(params)
    with perceiver.forward_mode():
        expected = jax.jit(jax.grad(along))(params)
        _, rate = jax.jit(lambda *x: jax.jvp(loss, *x))((params,), (direction,))
        hessian = jax.jit(lambda *x: jax.jvp(jax.grad(loss), *x)[1])((params,), (direction,))
    parts = jax.tree.map(jnp.vdot, slope(params), direction)
    np.testing.assert_allclose(rate, sum(jax.tree.leaves(parts)), rtol=1e-4)
    scale = max(float(np.abs(x).max()) for x in jax.tree.leaves(expected))
    for x, y in zip(jax.tree.leaves(hessian), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4 * scale)
