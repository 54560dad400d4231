"""Products with rounded operands, in both directions, and the layers that are made of them."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import perceiver
from perceiver.nn.layers import Linear, dot, layer_norm
from perceiver.nn.products import in_order, operand_dtype, product

F32_TOLERANCE = 2e-6  # relative to the largest value
BF16 = jnp.bfloat16
# Rounding to 8 bits moves each operand by 2^-9 of itself at most, about 2^-10 on average; errors of
# a sum's terms mostly cancel.
BF16_TOLERANCE = 2.0**-8
B, N, C, D = 2, 7, 11, 13


@pytest.fixture
def arrays(rng):
    """x [B, N, C], w [C, D] and a cotangent [B, N, D]."""
    return tuple(
        jnp.asarray(rng.standard_normal(shape), jnp.float32)
        for shape in ((B, N, C), (C, D), (B, N, D))
    )


def rounded(x):
    return np.asarray(jnp.asarray(x).astype(BF16), np.float64)


def assert_close(actual, expected, tolerance=F32_TOLERANCE):
    expected = np.asarray(expected, np.float64)
    np.testing.assert_allclose(actual, expected, atol=tolerance * np.abs(expected).max())


class TestDot:
    def test_float32_is_the_plain_product(self, arrays):
        x, w, g = arrays
        y, back = jax.vjp(dot, x, w)
        d_x, d_w = back(g)
        x, w, g = (np.asarray(a, np.float64) for a in arrays)
        assert_close(y, x @ w)
        assert_close(d_x, g @ w.T)
        assert_close(d_w, np.einsum("bnc,bnd->cd", x, g))

    def test_bfloat16_rounds_all_operands_of_all_three_products(self, arrays):
        x, w, g = arrays
        y, back = jax.vjp(lambda x, w: dot(x, w, "bfloat16"), x, w)
        d_x, d_w = back(g)
        assert {a.dtype for a in (y, d_x, d_w)} == {jnp.dtype("float32")}
        x, w, g = map(rounded, arrays)
        # the products of rounded numbers are exact in float32: nothing else was rounded
        assert_close(y, x @ w)
        assert_close(d_x, g @ w.T)
        assert_close(d_w, np.einsum("bnc,bnd->cd", x, g))
        assert np.abs(y - np.asarray(arrays[0]) @ np.asarray(arrays[1])).max() > 1e-4

    @pytest.mark.parametrize("rank", [1, 2, 4])
    def test_any_number_of_leading_axes(self, rng, rank):
        x = rng.standard_normal((3, 5, 2, C)[4 - rank :]).astype(np.float32)
        w = rng.standard_normal((C, D)).astype(np.float32)
        assert_close(dot(x, w), x @ w)
        gradient = jax.grad(lambda w: dot(x, w).sum())(w)
        assert_close(gradient, np.repeat(x.reshape(-1, C).sum(0)[:, None], D, axis=1))

    def test_bfloat16_activations_give_bfloat16_but_float32_gradients_of_weights(self, arrays):
        x, w, g = arrays
        y, back = jax.vjp(dot, x.astype(BF16), w)
        d_x, d_w = back(g.astype(BF16))
        assert (y.dtype, d_x.dtype, d_w.dtype) == (BF16, BF16, jnp.float32)
        assert_close(d_w, np.einsum("bnc,bnd->cd", rounded(x), rounded(g)))
        assert_close(y.astype(jnp.float32), rounded(x) @ rounded(w), BF16_TOLERANCE)

    def test_it_works_under_jit_vmap_and_twice_differentiated(self, arrays):
        x, w, _ = arrays

        def slope(w):
            return jnp.sum(jax.grad(lambda w: jnp.sum(dot(x, w) ** 3))(w) ** 2)

        def plain(w):
            return jnp.sum(jax.grad(lambda w: jnp.sum(jnp.dot(x, w) ** 3))(w) ** 2)

        assert_close(jax.jit(jax.grad(slope))(w), jax.grad(plain)(w), 1e-5)
        gradient = jax.grad(lambda x, w: dot(x, w).sum(), argnums=(0, 1))
        many = jax.jit(jax.vmap(gradient, in_axes=(0, None)))(x, w)
        for i in range(B):
            for one, all_of_them in zip(gradient(x[i], w), many, strict=True):
                assert_close(all_of_them[i], one)

    def test_it_works_on_sharded_arrays(self, rng):
        x = rng.standard_normal((8, N, C)).astype(np.float32)
        w = rng.standard_normal((C, 16)).astype(np.float32)
        mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        gradient = jax.jit(jax.grad(lambda x, w: jnp.sum(dot(x, w) ** 2), argnums=(0, 1)))
        rows = jax.device_put(x, NamedSharding(mesh, P("data")))
        columns = jax.device_put(w, NamedSharding(mesh, P(None, "data")))
        split = jax.block_until_ready(gradient(rows, columns))
        for one, other in zip(split, gradient(x, w), strict=True):
            assert_close(one, other)

    def test_a_policy_of_checkpoint_may_keep_the_product(self, arrays):
        x, w, _ = arrays
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable

        def products(policy):
            f = jax.checkpoint(
                lambda x, w: jnp.sin(dot(jnp.sin(dot(x, w)), w.T)).sum(), policy=policy
            )
            return str(jax.make_jaxpr(jax.grad(f))(x, w)).count("dot_general[")

        assert products(policy) == products(None) - 2


class TestProduct:
    @pytest.mark.parametrize("operands", ["float32", "bfloat16"])
    @pytest.mark.parametrize(
        ("equation", "left", "right"),
        [
            ("bqhc,bkhc->bhqk", (2, 3, 5, 7), (2, 11, 5, 7)),
            ("bhqk,bkhv->bqhv", (2, 5, 3, 11), (2, 11, 5, 13)),
            ("bme,ke->bmk", (2, 3, 7), (11, 7)),
            ("bq,p->bqp", (2, 3), (7,)),
        ],
    )
    def test_values_and_gradients_equal_einsum(self, rng, equation, left, right, operands):
        a, b = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in (left, right))
        y, back = jax.vjp(lambda a, b: product(equation, a, b, operands), a, b)
        g = jnp.asarray(rng.standard_normal(y.shape), jnp.float32)

        def plain(a, b):
            return jnp.einsum(equation, a, b)

        low = [x.astype(operands).astype(jnp.float32) for x in (a, b, g)]
        expected, plain_back = jax.vjp(plain, *low[:2])
        assert_close(y, expected)
        for one, other in zip(back(g), plain_back(low[2]), strict=True):
            assert_close(one, other)

    def test_what_operands_are_rounded_to(self):
        x = jnp.zeros(3)
        assert operand_dtype(x, "float32") == jnp.float32
        assert operand_dtype(x, "bfloat16") == BF16
        assert operand_dtype(x.astype(jnp.float16), "bfloat16") == jnp.float16

    def test_in_order_changes_no_value(self, rng):
        x = rng.standard_normal((3, 5, 7)).astype(np.float32)
        laid_out = jax.jit(lambda x: in_order(jnp.transpose(x, (2, 0, 1))))(x)
        np.testing.assert_array_equal(laid_out, x.transpose(2, 0, 1))

    @pytest.mark.parametrize("split", [True, False])
    def test_no_layout_is_asked_for_where_xla_splits_arrays(self, split):
        """XLA would gather them; in `shard_map` each device has an array of its own."""
        mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        rows = jax.sharding.PartitionSpec("data")

        def total(x):
            return in_order(jnp.swapaxes(x, 1, 2)).sum(axis=(1, 2))

        def run(x):
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                if split:
                    return total(x)
                return jax.shard_map(total, mesh=mesh, in_specs=rows, out_specs=rows)(x)

        rows_of = jax.sharding.NamedSharding(mesh, rows)
        x = jax.ShapeDtypeStruct((16, 3, 5), jnp.float32, sharding=rows_of)
        lowered = jax.jit(run).lower(x)
        assert ("LayoutConstraint" in lowered.as_text()) == (not split)
        assert "all-gather" not in lowered.compile().as_text()


def test_linear_takes_operands(arrays, draw_params):
    x, _, _ = arrays

    def apply(operands):
        transformed = hk.transform(
            lambda x: Linear(channels=D, operands=operands, name="linear")(x)
        )
        params = draw_params(transformed.init, x)
        return transformed.apply(params, None, x), params["linear"]

    y, params = apply("bfloat16")
    exact, _ = apply("float32")
    assert_close(y, rounded(x) @ rounded(params["w"]) + params["b"])
    assert 0 < np.abs(y - exact).max() < BF16_TOLERANCE * np.abs(exact).max() * 4


def test_layer_norm_computes_in_float32(rng):
    x = jnp.asarray(100 + rng.standard_normal((B, N, 64)), BF16)
    y = layer_norm(x, jnp.ones(64), jnp.zeros(64))
    assert y.dtype == BF16
    z = np.asarray(x, np.float64)
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(np.asarray(y, np.float64), z, atol=2.0**-7)


@pytest.mark.parametrize("kind", [pytest.param("image", marks=pytest.mark.slow), "text"])
def test_rounded_operands_of_a_whole_model_are_a_small_error(kind, request, draw_params, rng):
    spec = request.getfixturevalue(f"{kind}_spec") | {"layers": 1}
    inputs = {
        "image": {"image": rng.standard_normal((3, 5, 7, 3)).astype(np.float32)},
        "text": {
            "tokens": rng.integers(0, 262, (3, 17)).astype(np.int32),
            "input_mask": np.ones((3, 17), bool),
        },
    }[kind]
    params = draw_params(perceiver.build(spec).init)

    def outputs_and_gradients(operands):
        model = perceiver.build(spec | {"operands": operands})

        def total(params):
            y, _ = model.apply(params, {}, None, inputs)
            return jnp.sum(jax.nn.log_softmax(y)[..., 0]), y

        gradients, y = jax.jit(jax.grad(total, has_aux=True))(params)
        return y, jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(gradients)])

    pairs = zip(outputs_and_gradients("bfloat16"), outputs_and_gradients("float32"), strict=True)
    for low, exact in pairs:
        assert low.dtype == jnp.float32
        error = jnp.linalg.norm(low - exact) / jnp.linalg.norm(exact)
        assert 1e-4 < error < 3e-2
