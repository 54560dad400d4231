"""The composition: which weights each stage uses, and the symmetries that a Perceiver must have."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import (
    ByteArray,
    Dense,
    Encoder,
    LearnedTable,
    Perceiver,
    PerExample,
    Processor,
    Segment,
    SeparableFourier,
    Sharing,
    build,
)
from perceiver.outputs.classes import QueryClassifier

TOLERANCE = 1e-5  # absolute, of outputs of size 1
# In bfloat16 every array is rounded by up to 2^-9; some 20 of them follow each other.
BF16_TOLERANCE = 20 * 2.0**-9
B, M, F, P, N, D = 2, 7, 3, 5, 4, 6
STAGES = 3


def perceiver(sharing, decode=lambda latents, *, is_training: latents, **fields):
    def numbered(kind, numbers):
        return [f"{kind}_{i}" if i else kind for i in range(max(numbers) + 1)]

    return Perceiver(
        latents=LearnedTable(size=N, channels=D, scale=1.0, name="latents"),
        encoders=tuple(Encoder(heads=1, name=n) for n in numbered("encoder", sharing.encoders)),
        processors=tuple(
            Processor(layers=2, heads=2, name=n) for n in numbered("processor", sharing.processors)
        ),
        sharing=sharing,
        decode=decode,
        **fields,
    )


@pytest.fixture
def content(rng):
    return jnp.asarray(rng.standard_normal((B, M, F)), jnp.float32)


@pytest.fixture
def table(rng):
    return jnp.asarray(rng.standard_normal((M, P)), jnp.float32)


class TestSharing:
    def test_the_papers_readings(self):
        assert Sharing.io().stages == ((0, 0),)
        assert Sharing.classical(4).stages == ((0, 0), (1, 0), (1, 0), (1, 0))
        assert Sharing.classical(1) == Sharing.unshared(1) == Sharing.io()
        assert Sharing.unshared(3).stages == ((0, 0), (1, 1), (2, 2))

    @pytest.mark.parametrize(
        ("encoders", "processors", "message"),
        [
            ((), (), "need one entry per stage"),
            ((0, 1), (0,), r"encoders=\(0, 1\) and processors=\(0,\) need one entry per stage"),
            ((1, 0), (0, 0), r"encoders=\(1, 0\) must number weights 0, 1, ... in order"),
            ((0, 0), (0, 2), r"processors=\(0, 2\) must number weights"),
            ((-1,), (0,), r"encoders=\(-1,\) must number weights"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, encoders, processors, message):
        with pytest.raises(ValueError, match=message):
            Sharing(encoders=encoders, processors=processors)

    def test_no_stages_are_refused(self):
        with pytest.raises(ValueError, match="need one entry per stage"):
            Sharing.classical(0)

    @pytest.mark.parametrize(
        ("sharing", "encoders", "processors"),
        [
            (Sharing.io(), ["encoder"], ["processor"]),
            (Sharing.classical(STAGES), ["encoder", "encoder_1"], ["processor"]),
            (
                Sharing.unshared(STAGES),
                ["encoder", "encoder_1", "encoder_2"],
                ["processor", "processor_1", "processor_2"],
            ),
        ],
    )
    def test_parameters_exist_once_per_number(self, content, sharing, encoders, processors):
        init = hk.transform(lambda x: perceiver(sharing)(ByteArray.of(Segment(x)))).init
        params = jax.eval_shape(init, jax.random.key(0), content)
        assert {path.split("/")[0] for path in params} == {"latents", *encoders, *processors}

    @pytest.mark.parametrize("kind", ["classical", "unshared"])
    def test_stages_equal_a_loop_written_by_hand(self, run, content, kind):
        """Encoder k, then processor k, with the weights that the sharing names."""
        sharing = getattr(Sharing, kind)(STAGES)
        latents, params = run(
            lambda x: perceiver(sharing).encode(ByteArray.of(Segment(x))), content
        )
        encoder = hk.transform(
            lambda z, x: Encoder(heads=1, name="encoder")(z, ByteArray.of(Segment(x)))
        )
        processor = hk.transform(lambda z: Processor(layers=2, heads=2, name="processor")(z))
        encode, process = jax.jit(encoder.apply), jax.jit(processor.apply)

        def renamed(theirs, ours):
            return {
                f"{ours}/{path.split('/', 1)[1]}": leaves
                for path, leaves in params.items()
                if path.split("/")[0] == theirs
            }

        names = ["encoder", "encoder_1", "encoder_1" if kind == "classical" else "encoder_2"]
        expected = jnp.broadcast_to(params["latents"]["table"], (B, N, D))
        for stage, name in enumerate(names):
            own = f"processor_{stage}" if kind == "unshared" and stage else "processor"
            expected = encode(renamed(name, "encoder"), None, expected, content)
            expected = process(renamed(own, "processor"), None, expected)
        np.testing.assert_allclose(latents, expected, atol=TOLERANCE)

    def test_there_is_an_attention_map_per_stage(self, run, content):
        mask = jnp.asarray([[True] * M, [True] * (M - 2) + [False] * 2])

        def maps(x):
            return perceiver(Sharing.classical(STAGES)).attention_maps(
                ByteArray.of(Segment(x, mask=mask))
            )

        maps, _ = run(maps, content)
        assert [m.shape for m in maps] == [(B, 1, N, M)] * STAGES
        for m in maps:
            np.testing.assert_allclose(m.sum(-1), 1, atol=TOLERANCE)
            assert not m[1, :, :, -2:].any()
        assert not np.allclose(maps[0], maps[1])


def test_options_reach_the_decoder(run, content):
    def decode(latents, *, is_training, offset):
        return latents.mean(axis=(1, 2)) + offset

    def decoded(x):
        model, byte_array = perceiver(Sharing.io(), decode), ByteArray.of(Segment(x))
        return model(byte_array, offset=0), model(byte_array, offset=5)

    (y, z), _ = run(decoded, content)
    np.testing.assert_allclose(z - y, 5, atol=TOLERANCE)


@pytest.fixture(scope="module")
def encode(draw_params):
    """encode(make byte array, *arrays) -> latents, with one set of parameters throughout."""
    model = hk.transform(lambda byte_array: perceiver(Sharing.classical(2)).encode(byte_array))

    @functools.cache
    def params():
        example = ByteArray.of(Segment(jnp.zeros((B, M, F + P))))
        return draw_params(model.init, example)

    apply = jax.jit(model.apply)
    return lambda *segments: apply(params(), None, ByteArray.of(*segments))


class TestSymmetries:
    def test_the_order_of_inputs_does_not_matter(self, encode, content, table, rng):
        order = rng.permutation(M)
        plain = encode(Segment(content, Dense(table)))
        shuffled = encode(Segment(content[:, order], Dense(table[order])))
        np.testing.assert_allclose(shuffled, plain, atol=TOLERANCE)
        # positions do matter: left behind, they make another input
        torn = encode(Segment(content[:, order], Dense(table)))
        assert np.abs(torn - plain).max() > 100 * TOLERANCE

    def test_each_example_may_have_its_own_order(self, encode, content, table, rng):
        orders = [rng.permutation(M) for _ in range(B)]
        mask = rng.random((B, M)) < 0.7
        plain = encode(Segment(content, Dense(table), mask=jnp.asarray(mask)))
        shuffled, positions, masks = (
            jnp.stack([x[b][order] for b, order in enumerate(orders)])
            for x in (content, jnp.broadcast_to(table, (B, M, P)), mask)
        )
        y = encode(Segment(shuffled, PerExample(positions), mask=masks))
        np.testing.assert_allclose(y, plain, atol=TOLERANCE)

    def test_segments_may_be_cut_and_swapped(self, encode, content, table):
        whole = encode(Segment(content, Dense(table)))
        head = Segment(content[:, :3], Dense(table[:3]), name="head")
        tail = Segment(content[:, 3:], Dense(table[3:]), name="tail")
        np.testing.assert_allclose(encode(head, tail), whole, atol=TOLERANCE)
        np.testing.assert_allclose(encode(tail, head), whole, atol=TOLERANCE)

    def test_padding_under_a_mask_changes_nothing(self, encode, content, table):
        plain = encode(Segment(content, Dense(table)))
        more = 4
        padded = encode(
            Segment(
                jnp.concatenate([content, jnp.full((B, more, F), 1e3)], axis=1),
                Dense(jnp.concatenate([table, jnp.full((more, P), -1e3)])),
                mask=jnp.arange(M + more)[None] < jnp.full((B, 1), M),
            )
        )
        np.testing.assert_allclose(padded, plain, atol=TOLERANCE)

    def test_examples_do_not_see_each_other(self, encode, content, table):
        plain = encode(Segment(content, Dense(table)))
        moved = encode(Segment(content.at[1].add(1.0), Dense(table)))
        np.testing.assert_array_equal(moved[0], plain[0])


def test_shuffled_pixels_give_the_same_logits(draw_params, rng):
    """The whole path to the logits, with the positions of the image given to the pixels."""
    positions = SeparableFourier.of_grid((5, 7), bands=2).dense()
    pixels = jnp.asarray(rng.standard_normal((B, 35, 3)), jnp.float32)

    def logits(pixels, positions):
        head = QueryClassifier(classes=11, channels=6, heads=1, query_residual=True, name="outputs")
        return perceiver(Sharing.io(), head)(ByteArray.of(Segment(pixels, Dense(positions))))

    transformed = hk.transform(logits)
    params = draw_params(transformed.init, pixels, positions)
    apply = jax.jit(transformed.apply)
    order = rng.permutation(35)
    np.testing.assert_allclose(
        apply(params, None, pixels[:, order], positions[order]),
        apply(params, None, pixels, positions),
        atol=TOLERANCE,
    )


def test_padding_a_text_changes_no_logits_of_real_tokens(text_spec, draw_params, rng):
    model = build(text_spec)
    params = draw_params(model.init)
    tokens = rng.integers(6, 262, (B, 11)).astype(np.int32)
    mask = np.ones((B, 11), bool)
    mask[1, 8:] = False
    apply = jax.jit(model.apply)
    short, _ = apply(params, {}, None, {"tokens": tokens, "input_mask": mask})
    for filler in (0, 200):
        padded = np.pad(tokens, ((0, 0), (0, 6)), constant_values=filler)
        padded_mask = np.pad(mask, ((0, 0), (0, 6)))
        long, _ = apply(params, {}, None, {"tokens": padded, "input_mask": padded_mask})
        assert long.shape == (B, 17, 262)
        np.testing.assert_allclose(long[:, :11][mask], short[mask], atol=TOLERANCE)


class TestBfloat16:
    @pytest.fixture(params=["image", "text"])
    def case(self, request, image_spec, text_spec, rng):
        if request.param == "text":
            tokens = rng.integers(0, 262, (B, 11)).astype(np.int32)
            return text_spec, {"tokens": tokens, "input_mask": np.ones((B, 11), bool)}
        image = rng.standard_normal((B, 5, 7, 3)).astype(np.float32)
        return {**image_spec, "head": "query"}, {"image": image}

    def test_only_the_computation_is_in_bfloat16(self, case, draw_params):
        spec, inputs = case
        exact, low = build(spec), build({**spec, "dtype": "bfloat16"})
        made, again = (jax.eval_shape(m.init, jax.random.key(0))[0] for m in (exact, low))
        assert made == again
        assert {leaf.dtype for leaf in jax.tree.leaves(again)} == {jnp.dtype("float32")}
        params = draw_params(low.init)
        (expected, _), (y, _) = (jax.jit(m.apply)(params, {}, None, inputs) for m in (exact, low))
        assert y.dtype == jnp.float32
        scale = np.abs(expected).max()
        np.testing.assert_allclose(y / scale, expected / scale, atol=BF16_TOLERANCE)
        assert np.abs(y - expected).max() > 1e-4 * scale  # it did compute in bfloat16

        text = str(jax.make_jaxpr(lambda p: low.apply(p, {}, None, inputs)[0])(params))
        for operation in ("exp", "rsqrt"):  # softmax; norms
            lines = [line for line in text.splitlines() if f"= {operation}" in line]
            assert lines
            assert all(":bf16" not in line.split("=")[0] for line in lines), operation

    def test_gradients_are_float32(self, case):
        spec, inputs = case
        model = build({**spec, "dtype": "bfloat16"})
        params = jax.eval_shape(model.init, jax.random.key(0))[0]
        gradient = jax.eval_shape(
            jax.grad(lambda p: model.apply(p, {}, None, inputs)[0].sum()), params
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}


def test_dropout_differs_by_key_and_is_for_training(image_spec, draw_params, rng):
    model = build({**image_spec, "dropout_rate": 0.3, "attention_dropout_rate": 0.1})
    params = draw_params(model.init)
    inputs = {"image": rng.standard_normal((B, 5, 7, 3)).astype(np.float32)}
    train = jax.jit(lambda key: model.apply(params, {}, key, inputs, is_training=True)[0])
    first, again, other = (train(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    plain = build(image_spec)
    np.testing.assert_array_equal(
        jax.jit(model.apply)(params, {}, None, inputs)[0],
        jax.jit(plain.apply)(params, {}, None, inputs)[0],
    )
    with pytest.raises(ValueError, match="PRNGKey"):
        model.apply(params, {}, None, inputs, is_training=True)


def test_too_few_or_too_many_modules_for_the_sharing_are_refused():
    common = {"latents": None, "decode": None, "processors": (None,), "sharing": Sharing.io()}
    for encoders in ((), (None, None)):
        with pytest.raises(ValueError, match=r"needs 1 encoders, got [02]"):
            Perceiver(encoders=encoders, **common)
