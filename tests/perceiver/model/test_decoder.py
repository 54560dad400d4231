import math

import haiku as hk
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.model.decoder import Decoder
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.positions import Dense, PerExample, SeparableFourier

TOLERANCE = 1e-5  # of the largest magnitude, float32
BF16_TOLERANCE = 3e-2
B, N, D = 2, 11, 12

KEY = "decoder/cross_attend/attend/attention/key"


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def fourier(dims, bands=3):
    return SeparableFourier.of_grid(dims, bands=bands)


# name -> (the differentiable parts of queries, how to put them together)
QUERIES = {
    "array": lambda rng: (normal(rng, B, 37, 10), lambda x: x),
    "list": lambda rng: (
        (normal(rng, B, 37, 5), None, None),
        lambda x: ByteArray.of(Segment(*x)),
    ),
    "line": lambda rng: (
        (normal(rng, B, 37, 3), fourier((37,))),
        lambda x: ByteArray.of(Segment(*x)),
    ),
    "image": lambda rng: (
        (normal(rng, B, 7, 5, 3), fourier((7, 5)), normal(rng, 4)),
        lambda x: ByteArray.of(Segment(*x)),
    ),
    "video": lambda rng: (
        (normal(rng, B, 3, 2, 5, 3), fourier((3, 2, 5), bands=2)),
        lambda x: ByteArray.of(Segment(*x)),
    ),
    "positions only": lambda rng: (
        (fourier((7, 5)),),
        lambda x: ByteArray.of(Segment(jnp.zeros((B, 7, 5, 0)), *x)),
    ),
    "points": lambda rng: (
        (normal(rng, B, 37, 3), PerExample(normal(rng, B, 37, 5))),
        lambda x: ByteArray.of(Segment(*x)),
    ),
    "image + table": lambda rng: (
        (
            (normal(rng, B, 7, 5, 3), fourier((7, 5))),
            (normal(rng, B, 13, 7), Dense(normal(rng, 13, 10))),
        ),
        lambda x: ByteArray.of(Segment(*x[0], name="image"), Segment(*x[1], name="table")),
    ),
}


def transform(make, *, masked=None, then=None, compute, **options):
    """(params, query parts, latents) -> outputs; the decoder puts the queries together."""
    options = {"heads": 1, "out_channels": 3, "widening": 2} | options

    def run(parts, latents):
        decoder = Decoder(compute=compute, name="decoder", **options)
        return decoder(make(parts), latents, query_mask=masked, then=then)

    return hk.without_apply_rng(hk.transform(run))


def gradients(transformed, weights):
    def loss(params, parts, latents):
        y = transformed.apply(params, parts, latents)
        return (y * weights).sum(), y

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))


def assert_near(actual, expected, tolerance=TOLERANCE):
    def check(path, x, y):
        assert x.dtype == y.dtype
        error = np.abs(np.asarray(x - y, np.float32)).max(initial=0)
        scale = np.abs(np.asarray(y, np.float32)).max(initial=0)
        assert error <= tolerance * scale, f"{jax.tree_util.keystr(path)}: {error} of {scale}"

    jax.tree_util.tree_map_with_path(check, actual, expected)


def assert_equal_the_dense_form(parts, make, latents, masked, computes, options, rng, draw_params):
    """Outputs, and the gradients of all parameters, queries and latents, by each of the ways."""

    def concatenated(parts):
        queries = make(parts)
        return queries.dense() if isinstance(queries, ByteArray) else queries

    shape = jax.eval_shape(concatenated, parts).shape[:2]
    options = options | {"masked": jnp.asarray(rng.random(shape) < 0.7) if masked else None}
    dense = transform(concatenated, compute=Compute(path="plain"), **options)
    params = draw_params(dense.init, parts, latents)
    weights = normal(rng, *jax.eval_shape(dense.apply, params, parts, latents).shape)
    expected = gradients(dense, weights)(params, parts, latents)
    expected[0][0][KEY].pop("b")  # the softmax does not see it: rounding noise
    for compute in computes:
        ours = transform(make, compute=compute, **options)
        actual = gradients(ours, weights)(params, parts, latents)
        assert not np.any(actual[0][0][KEY].pop("b"))
        assert_near(actual, expected)


@pytest.mark.parametrize("path", ["streaming", "shared", "separable"])
def test_what_is_not_finite_on_the_plain_path_is_so_on_every_path(path, rng, draw_params):
    """And nothing else, in outputs and gradients."""
    (content, positions, constant), make = QUERIES["image"](rng)
    latents = normal(rng, B, N, D)

    def dense(parts):
        return make(parts).dense()

    plain = transform(dense, compute=Compute(path="plain"))
    params = draw_params(plain.init, (content, positions, constant), latents)
    ours = transform(make, compute=Compute(path=path, chunk=11))
    weights = normal(rng, B, 35, 3)
    plain, ours = gradients(plain, weights), gradients(ours, weights)
    module = "decoder/cross_attend/attend/attention"
    for where in (f"{module}/key", f"{module}/value", f"{module}/query", "latents", "queries"):
        for leaf in ("w", "b") if where in params else (None,):
            bad, read, asked = params, latents, content
            if where == "latents":
                read = read.at[1, 2, 3].set(jnp.nan)
            elif where == "queries":
                asked = asked.at[1, 2, 3, 0].set(jnp.nan)
            else:
                broken = jnp.asarray(params[where][leaf]).at[..., 1].set(jnp.nan)
                bad = params | {where: params[where] | {leaf: broken}}
            found, expected = (
                jax.tree.map(np.isfinite, f(bad, (asked, positions, constant), read))
                for f in (ours, plain)
            )
            for tree in (found, expected):
                tree[0][0][KEY].pop("b")  # the softmax does not see it
            assert not expected[1].all()
            jax.tree.map(np.testing.assert_array_equal, found, expected)


# Each path with each kind of queries that it treats in a way of its own; with and without a mask,
# residual, final layer, absorbed values, and heads.
@pytest.mark.parametrize(
    ("name", "computes", "masked", "options"),
    [
        ("array", {"streaming": 8}, True, {"heads": 2, "query_residual": False}),
        (
            "list",
            {"streaming": 37, "shared": 50},
            False,
            {"qk_channels": 5, "v_channels": 2, "out_channels": None},
        ),
        (
            "image",
            {"separable": 11, "streaming": 15},
            True,
            {"query_residual": False},
        ),
        ("line", {"streaming": 8}, False, {"heads": 3}),
        ("video", {"separable": 10}, True, {"v_channels": 40, "out_channels": None}),
        ("positions only", {"separable": 1}, False, {"v_channels": 2, "query_residual": False}),
        ("points", {"shared": 8}, True, {"v_channels": 40}),
        ("image + table", {"shared": 10}, True, {"query_residual": False}),
    ],
)
def test_values_and_all_gradients_equal_the_dense_form(
    name, computes, masked, options, rng, draw_params
):
    parts, make = QUERIES[name](rng)
    latents = normal(rng, B, N, D)
    computes = [Compute(path=path, chunk=chunk) for path, chunk in computes.items()]
    assert_equal_the_dense_form(parts, make, latents, masked, computes, options, rng, draw_params)


@pytest.mark.slow
@hypothesis.settings(
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # a case compiles for seconds
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(data=st.data())
def test_any_grid_equals_the_dense_form(data, draw_params):
    draw = data.draw
    dims = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    path = draw(st.sampled_from(["streaming", "shared", "separable"]))
    heads = draw(st.sampled_from([1, 2, 3])) if path == "streaming" else 1
    # to one latent, attention is constant, and all that its gradients have is rounding noise
    batch, latents = draw(st.integers(1, 3)), draw(st.integers(3, 13))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    parts = (normal(rng, batch, *dims, draw(st.integers(0, 4))), fourier(dims, bands=2))
    options = {
        "heads": heads,
        "qk_channels": heads * draw(st.integers(1, 5)),
        "v_channels": heads * draw(st.integers(1, 20)),
        "query_residual": draw(st.booleans()),
        "out_channels": draw(st.sampled_from([None, 2])),
    }
    assert_equal_the_dense_form(
        parts,
        lambda x: ByteArray.of(Segment(*x)),
        normal(rng, batch, latents, D),
        draw(st.booleans()),
        [Compute(path=path, chunk=draw(st.integers(1, math.prod(dims) + 3)))],
        options,
        rng,
        draw_params,
    )


def test_parameters_do_not_depend_on_the_path(rng, key):
    parts, make = QUERIES["image"](rng)
    latents = normal(rng, B, N, D)

    @jax.jit
    def init(key):
        return [
            transform(make, compute=Compute(path=path, chunk=5)).init(key, parts, latents)
            for path in ("plain", "streaming", "shared", "separable")
        ]

    plain, *others = init(key)
    for other in others:
        assert jax.tree.structure(plain) == jax.tree.structure(other)
        jax.tree.map(np.testing.assert_array_equal, plain, other)


def test_a_decoder_called_twice_uses_the_same_parameters(rng, draw_params):
    queries, latents = normal(rng, B, 37, 10), normal(rng, B, N, D)

    def run(queries, latents):
        decoder = Decoder(heads=1, compute=Compute(path="shared"), name="decoder")
        return decoder(queries, latents), decoder(queries, latents)

    once = transform(lambda x: x, compute=Compute(path="shared"), out_channels=None, widening=1)
    twice = hk.without_apply_rng(hk.transform(run))
    params = draw_params(twice.init, queries, latents)
    expected = draw_params(once.init, queries, latents)
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    first, second = jax.jit(twice.apply)(params, queries, latents)
    np.testing.assert_array_equal(first, second)


def test_a_byte_array_of_queries_brings_its_own_mask(rng, draw_params):
    content, latents = normal(rng, B, 37, 10), normal(rng, B, N, D)
    mask = jnp.asarray(rng.random((B, 37)) < 0.5)
    options = {"compute": Compute(path="shared", chunk=10), "query_residual": False}
    inner = transform(lambda x: ByteArray.of(Segment(x, mask=mask)), **options)
    outer = transform(lambda x: x, masked=mask, **options)
    params = draw_params(inner.init, content, latents)
    y, expected = jax.jit(lambda *x: (inner.apply(*x), outer.apply(*x)))(params, content, latents)
    np.testing.assert_array_equal(y, expected)
    # what reads nothing gives the same, whatever the query
    assert np.ptp(y[~mask], axis=0).max() <= TOLERANCE
    assert np.ptp(y[mask], axis=0).min() > 0.1


def test_another_layer_may_follow_without_forming_its_input(rng, draw_params):
    parts, make = QUERIES["image"](rng)
    latents = normal(rng, B, N, D)
    then = normal(rng, 7, 2), normal(rng, 2)
    first = transform(make, compute=Compute(path="plain"), out_channels=7)
    params = draw_params(first.init, parts, latents)
    expected = jax.jit(first.apply)(params, parts, latents) @ then[0] + then[1][None, None]
    for path in ("plain", "shared", "separable"):
        compute = Compute(path=path, chunk=10)
        both = transform(make, compute=compute, out_channels=7, then=then)
        tree = draw_params(both.init, parts, latents)
        assert jax.tree.structure(params) == jax.tree.structure(tree)
        assert_near(jax.jit(both.apply)(params, parts, latents), expected)
        program = jax.make_jaxpr(both.apply)(params, parts, latents)
        assert (B, 35, 7) not in {v.aval.shape for e in program.eqns for v in e.outvars}


def test_another_layer_needs_a_final_projection(rng, key):
    then = normal(rng, 10, 2), normal(rng, 2)
    transformed = transform(lambda x: x, compute=Compute(), out_channels=None, then=then)
    with pytest.raises(ValueError, match="`then` needs a final projection, out_channels"):
        transformed.init(key, normal(rng, B, 37, 10), normal(rng, B, N, D))


def test_the_final_projection_may_start_at_zero(rng, key):
    queries, latents = normal(rng, B, 37, 10), normal(rng, B, N, D)
    computes = Compute(path="plain"), Compute(path="shared")
    makes = [transform(lambda x: x, compute=c, out_init=jnp.zeros).init for c in computes]
    for params in jax.jit(lambda key: [make(key, queries, latents) for make in makes])(key):
        assert not np.any(params["decoder/out"]["w"])


def test_works_under_transformations(rng, draw_params):
    parts, make = QUERIES["image"](rng)
    latents = normal(rng, B, N, D)
    transformed = transform(make, compute=Compute(path="separable", chunk=10))
    params = draw_params(transformed.init, parts, latents)
    content, *others = parts

    def loss(params, content, latents):
        return jnp.square(transformed.apply(params, (content, *others), latents)).sum()

    expected = jax.jit(jax.grad(loss))(params, content, latents)
    single = jax.jit(jax.vmap(jax.grad(jax.checkpoint(loss)), (None, 0, 0)))
    single = single(params, content[:, None], latents[:, None])
    assert_near(jax.tree.map(lambda x: x.sum(axis=0), single), expected)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    content, latents = jax.device_put((content, latents), split)
    sharded = jax.block_until_ready(jax.jit(jax.grad(loss))(params, content, latents))
    assert_near(jax.device_get(sharded), jax.device_get(expected))


@pytest.mark.parametrize(("name", "path"), [("image", "separable"), ("array", "streaming")])
def test_bfloat16_operands_round_and_do_no_more(name, path, rng, draw_params):
    parts, make = QUERIES[name](rng)
    latents = normal(rng, B, N, D)
    full = transform(make, compute=Compute(path=path, chunk=10))
    half = transform(make, compute=Compute(path=path, chunk=10, operands="bfloat16"))
    params = draw_params(full.init, parts, latents)
    weights = normal(rng, *jax.eval_shape(full.apply, params, parts, latents).shape)
    actual = gradients(half, weights)(params, parts, latents)
    expected = gradients(full, weights)(params, parts, latents)
    assert_near(actual, expected, BF16_TOLERANCE)
    assert np.abs(actual[1] - expected[1]).max() > 1e-4


def test_queries_in_bfloat16_give_outputs_in_bfloat16(rng, draw_params):
    content, grid, constant = QUERIES["image"](rng)[0]
    latents = normal(rng, B, N, D)
    outputs = {}
    for dtype in ("float32", "bfloat16"):
        transformed = transform(
            lambda x: ByteArray.of(Segment(x, grid, constant)),
            compute=Compute(path="separable", chunk=10),
        )
        parts = content.astype(dtype), latents.astype(dtype)
        params = draw_params(transformed.init, *parts)
        outputs[dtype] = jax.jit(transformed.apply)(params, *parts)
    assert outputs["bfloat16"].dtype == jnp.bfloat16
    error = jnp.abs(outputs["bfloat16"].astype(jnp.float32) - outputs["float32"]).max()
    assert error <= BF16_TOLERANCE * jnp.abs(outputs["float32"]).max()


FLOW = (1, 368, 496, 64)


def test_a_query_mask_of_another_shape_is_refused(rng, key):
    transformed = transform(lambda x: x, masked=jnp.ones((B, 36), bool), compute=Compute())
    with pytest.raises(ValueError, match=r"query_mask \(2, 36\) must be \(2, 37\)"):
        transformed.init(key, normal(rng, B, 37, 10), normal(rng, B, N, D))


def temp_bytes(function, *arguments) -> int:
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def test_a_decoder_of_flow_size_needs_little_memory(key):
    """182,528 queries of 322 channels, 2,048 latents: the dense form takes gigabytes."""
    grid = fourier(FLOW[1:-1], bands=64)
    arguments = (
        (jax.ShapeDtypeStruct(FLOW, jnp.float32), jax.eval_shape(lambda: grid)),
        jax.ShapeDtypeStruct((1, 2048, 512), jnp.float32),
    )
    flow = transform(
        lambda x: ByteArray.of(Segment(*x)), compute=Compute(), query_residual=False, out_channels=2
    )
    params = jax.eval_shape(flow.init, key, *arguments)
    assert temp_bytes(flow.apply, params, *arguments) < 28e6
    assert temp_bytes(flow.init, key, *arguments) < 28e6


def test_gradients_form_nothing_of_the_size_of_all_weights(key):
    dims, latents = (64, 96), (1, 256, 32)
    parts = jax.ShapeDtypeStruct((1, *dims, 8), jnp.float32), jax.eval_shape(lambda: fourier(dims))

    def temp(path, chunk=0):
        compute = Compute(path=path, chunk=chunk)
        transformed = transform(lambda x: ByteArray.of(Segment(*x)), compute=compute)
        arguments = parts, jax.ShapeDtypeStruct(latents, jnp.float32)
        params = jax.eval_shape(transformed.init, key, *arguments)

        def loss(*arguments):
            return transformed.apply(*arguments).sum()

        return temp_bytes(jax.grad(loss, argnums=(0, 1, 2)), params, *arguments)

    weights = 4 * dims[0] * dims[1] * latents[1]
    assert temp("plain") > weights
    for path in ("streaming", "shared", "separable"):
        assert temp(path, chunk=96) < weights / 2, path
