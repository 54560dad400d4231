"""The nested loops of the processor against the plain Python loops that they stand for."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.attention.blocks import SelfAttend
from perceiver.model.processor import REMAT, Processor, is_stacked

VALUES = 1e-5  # absolute, of outputs of size 1
GRADIENTS = 2e-5  # relative to a leaf's largest gradient
B, N, D, LAYERS = 2, 5, 8, 3
COTANGENT = np.random.default_rng(11).standard_normal((B, N, D)).astype(np.float32)
SIZES = {"layers": LAYERS, "heads": 2, "qk_channels": 4, "v_channels": 6, "widening": 2}


def processor(**fields):
    def apply(x, is_training=False):
        return Processor(**{**SIZES, **fields}, name="processor")(x, is_training=is_training)

    return hk.transform(apply)


@pytest.fixture
def x(rng):
    return jnp.asarray(rng.standard_normal((B, N, D)), jnp.float32)


@pytest.fixture
def params(draw_params, x):
    return draw_params(processor().init, x)


def unrolled(params, x, blocks, mask=None):
    """Applies SelfAttend to the slices of each layer, `blocks` times over."""
    sizes = {name: SIZES[name] for name in ("heads", "qk_channels", "v_channels", "widening")}
    layer = hk.transform(lambda x: SelfAttend(**sizes, name="self_attend")(x, mask=mask))
    prefix = "processor/layers/"
    for _ in range(blocks):
        for i in range(LAYERS):
            own = {
                path.removeprefix(prefix): {name: leaf[i] for name, leaf in leaves.items()}
                for path, leaves in params.items()
            }
            x = layer.apply(own, None, x)
    return x


def assert_same_gradients(actual, expected):
    # A key's bias moves all logits of a row alike, so its true gradient is zero and what is left
    # is noise: a leaf's scale is its own largest gradient, but at least a tenth of the tree's.
    floor = 0.1 * max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = max(np.abs(other).max(), floor)
        np.testing.assert_allclose(one / scale, other / scale, atol=GRADIENTS)


def test_every_parameter_has_a_leading_layer_axis(params):
    assert params
    for path, leaves in params.items():
        assert path.startswith("processor/layers/self_attend/")
        assert is_stacked(path)
        assert {leaf.shape[0] for leaf in leaves.values()} == {LAYERS}
    assert not is_stacked("encoder/cross_attend/attend/norm")
    assert not is_stacked("player_layers/norm")


def test_layers_start_from_different_weights(x):
    params = jax.jit(processor().init)(jax.random.key(0), x)
    w = params["processor/layers/self_attend/attend/attention/query"]["w"]
    assert len({row.tobytes() for row in np.asarray(w)}) == LAYERS


def test_the_scan_equals_an_unrolled_loop(params, x):
    def scanned(params, x):
        return processor(blocks=2).apply(params, None, x)

    def plain(params, x):
        return unrolled(params, x, blocks=2)

    def outputs_and_gradients(apply):
        def total(params, x):
            y = apply(params, x)
            return (COTANGENT * y).sum(), y

        gradients, y = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(params, x)
        return y, gradients

    (y, gradients), (expected, expected_gradients) = map(outputs_and_gradients, (scanned, plain))
    np.testing.assert_allclose(y, expected, atol=VALUES)
    assert_same_gradients(gradients, expected_gradients)


def test_blocks_repeat_the_same_weights(params, x):
    def shapes(blocks):
        return jax.eval_shape(processor(blocks=blocks).init, jax.random.key(0), x)

    assert shapes(7) == shapes(1)
    once = jax.jit(processor().apply)
    twice = jax.jit(processor(blocks=2).apply)(params, None, x)
    np.testing.assert_allclose(twice, once(params, None, once(params, None, x)), atol=VALUES)


def test_a_mask_reaches_every_layer(params, x):
    mask = jnp.asarray([[True, True, False, True, True], [True] * 5])
    transformed = hk.transform(
        lambda x: Processor(**SIZES, blocks=2, name="processor")(x, mask=mask)
    )
    y = jax.jit(transformed.apply)(params, None, x)
    plain = jax.jit(functools.partial(unrolled, blocks=2, mask=mask))
    np.testing.assert_allclose(y, plain(params, x), atol=VALUES)
    moved = jax.jit(transformed.apply)(params, None, x.at[0, 2].add(1.0))
    np.testing.assert_array_equal(y[np.asarray(mask)], moved[np.asarray(mask)])


class TestDropout:
    def test_each_block_and_each_layer_draws_its_own(self, params):
        # The layers' branches are constant, so a dropped element is seen in the sum of kept ones:
        # were the pattern the same in every block and layer, sums would be 0 or 6 times the branch.
        rate, blocks = 0.5, 2
        dropping = processor(blocks=blocks, dropout_rate=rate)
        params = jax.tree.map(np.zeros_like, params)
        params["processor/layers/self_attend/feed_forward/mlp/out"]["b"] += 1.0
        wide = jnp.zeros((29, 31, D))
        y = jax.jit(dropping.apply, static_argnums=3)(params, jax.random.key(1), wide, True)
        kept = np.round(np.asarray(y) * (1 - rate)).astype(int)  # of 6 branches
        shares = np.bincount(kept.ravel(), minlength=7) / kept.size
        binomial = np.array([1, 6, 15, 20, 15, 6, 1]) / 64
        np.testing.assert_allclose(shares, binomial, atol=0.03)

    def test_evaluation_needs_no_key(self, params, x):
        dropping = processor(blocks=2, dropout_rate=0.5, attention_dropout_rate=0.5)
        np.testing.assert_array_equal(
            jax.jit(dropping.apply)(params, None, x),
            jax.jit(processor(blocks=2).apply)(params, None, x),
        )


@functools.cache
def compiled_gradient(remat):
    """Compiles value and gradients of a stack, deep enough for its memory to show."""
    transformed = processor(blocks=3, remat=remat)

    def total(params, x):
        return jnp.sin(transformed.apply(params, None, x)).sum()

    x = jax.ShapeDtypeStruct((B, 61, D), jnp.float32)
    params = jax.eval_shape(transformed.init, jax.random.key(0), x)
    return jax.jit(jax.value_and_grad(total, argnums=(0, 1))).lower(params, x).compile()


class TestRemat:
    @pytest.mark.parametrize("remat", [name for name in REMAT if name != "none"])
    def test_values_and_gradients_stay(self, params, rng, remat):
        x = jnp.asarray(rng.standard_normal((B, 61, D)), jnp.float32)
        value, gradients = compiled_gradient(remat)(params, x)
        expected, expected_gradients = compiled_gradient("none")(params, x)
        np.testing.assert_allclose(value, expected, rtol=VALUES)
        assert_same_gradients(gradients, expected_gradients)

    def test_it_saves_memory(self):
        used = {
            remat: compiled_gradient(remat).memory_analysis().temp_size_in_bytes for remat in REMAT
        }
        assert used["layer"] < 0.3 * used["none"]
        assert used["dots"] < 0.5 * used["none"]
        assert used["layer"] < 0.7 * used["dots"]

    @pytest.mark.parametrize("blocks", [1, 2])
    def test_memory_grows_with_the_square_root_of_the_depth(self, blocks):
        x = jax.ShapeDtypeStruct((4099, 1, 2), jnp.float32)  # far larger than a layer

        def temporary(depth):
            layers = depth // blocks
            sizes = {"layers": layers, "blocks": blocks, "heads": 1, "remat": "sqrt"}
            stack = hk.transform(lambda x: Processor(**sizes, name="processor")(x))
            params = jax.eval_shape(stack.init, jax.random.key(0), x)
            gradient = jax.grad(lambda params, x: stack.apply(params, None, x).sum())
            return jax.jit(gradient).lower(params, x).compile().memory_analysis().temp_size_in_bytes

        carry = x.size * x.dtype.itemsize
        # were every layer's input kept, it were 300 carries; of groups of 10 and 20 it is 20
        assert temporary(400) - temporary(100) < 30 * carry

    @pytest.mark.parametrize(
        # 11 layers are no whole number of groups, whose weights must not be cut out as copies
        ("remat", "blocks"),
        [("dots", 3), ("layer", 3), ("sqrt", 3), ("sqrt", 1)],
    )
    def test_gradients_of_layers_are_summed_in_place(self, remat, blocks):
        # all but the sums themselves, which are results, must be small beside the parameters
        sizes = {"layers": 11, "heads": 1, "blocks": blocks, "remat": remat}
        transformed = hk.transform(lambda x: Processor(**sizes, name="processor")(x))
        x = jax.ShapeDtypeStruct((1, 3, 64), jnp.float32)
        params = jax.eval_shape(transformed.init, jax.random.key(0), x)
        gradient = jax.grad(lambda params, x: transformed.apply(params, None, x).sum())
        compiled = jax.jit(gradient).lower(params, x).compile()
        size = sum(4 * leaf.size for leaf in jax.tree.leaves(params))
        assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * size

    def test_dropout_is_recomputed_as_it_was(self, params, x):
        # were the mask drawn anew for the backward pass, the gradient would not be the slope
        transformed = processor(blocks=2, remat="layer", dropout_rate=0.3)

        def total(params, x):
            return (COTANGENT * transformed.apply(params, jax.random.key(5), x, True)).sum()

        def value_and_slope(x, direction):
            return jax.value_and_grad(lambda s: total(params, x + s * direction))(0.0)

        direction = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
        step, walk = 3e-3, jax.jit(value_and_slope)
        low, high = (walk(x + s * direction, direction)[0] for s in (-step, step))
        _, slope = walk(x, direction)
        np.testing.assert_allclose(slope, (high - low) / (2 * step), rtol=1e-2)

    def test_the_parameter_tree_stays(self, x):
        trees = {
            remat: jax.eval_shape(processor(blocks=2, remat=remat).init, jax.random.key(0), x)
            for remat in REMAT
        }
        assert all(tree == trees["none"] for tree in trees.values())

    def test_an_unknown_choice_is_refused(self, x):
        with pytest.raises(ValueError, match="unknown remat 'all'; known: dots, layer, sqrt, none"):
            processor(remat="all").init(jax.random.key(0), x)


def test_heads_must_divide_channels(x):
    with pytest.raises(
        ValueError, match="attention/query: 4 channels are not divisible by 3 heads"
    ):
        processor(heads=3).init(jax.random.key(0), x)
