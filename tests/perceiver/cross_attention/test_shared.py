"""Attention to elements with shared positions equals the plain form, in values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.cross_attention import shared
from perceiver.cross_attention.merge import NOTHING
from perceiver.cross_attention.shared import Sums

TOLERANCE = 1e-5  # of the largest magnitude
FLOATS = ("content", "table", "g_content", "g_table", "bias", "inverse_std")

CASES = {
    "one_step": {},
    "even_chunks_masked": {"size": 21, "chunk": 7, "masked": "some"},
    "single_elements": {"chunk": 1},
    "chunk_beyond_the_end": {"chunk": 100},
    "no_table": {"table": False, "chunk": 5},
    "example_without_elements": {"masked": "all", "chunk": 5},
    "chunks_without_elements": {"masked": "ends", "chunk": 3},
    "wide_content": {"features": 17, "chunk": 6},
    "bfloat16_content": {"dtype": jnp.bfloat16, "chunk": 5},
}


def draw(*, size=23, features=3, table=True, masked="none", dtype=jnp.float32, batch=2):
    """Returns the float inputs by name, and the mask."""
    rng, p, queries = np.random.default_rng(0), 11, 7

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    arrays = {
        "content": normal(batch, size, features).astype(dtype),
        "table": normal(size, p) if table else None,
        "g_content": normal(batch, queries, features),
        "g_table": normal(batch, queries, p) if table else None,
        "bias": normal(batch, queries),
        "inverse_std": jnp.exp(0.3 * normal(batch, size)),
    }
    mask = rng.random((batch, size)) < 0.6
    if masked == "all":
        mask[0] = False
    if masked == "ends":
        mask[:, :7], mask[:, -7:] = False, False
    return arrays, None if masked == "none" else jnp.asarray(mask)


def plain(content, table, g_content, g_table, bias, inverse_std, mask=None) -> Sums:
    """All Q x M logits at once."""
    content = content.astype(jnp.float32)
    logits = bias[:, :, None] + jnp.einsum("bqf,bmf->bqm", g_content, content)
    if table is not None:
        logits = logits + jnp.einsum("bqp,mp->bqm", g_table, table)
    logits = logits * inverse_std[:, None]
    real = jnp.ones_like(logits, bool)
    if mask is not None:
        real = jnp.broadcast_to(mask[:, None], real.shape)
    logits = jnp.where(real, logits, NOTHING)
    p = jnp.where(real, jax.nn.softmax(logits, axis=-1), 0.0) * inverse_std[:, None]
    return Sums(
        jnp.einsum("bqm,bmf->bqf", p, content),
        None if table is None else jnp.einsum("bqm,mp->bqp", p, table),
        p.sum(axis=-1),
        jnp.where(real.any(axis=-1), jax.nn.logsumexp(logits, axis=-1), NOTHING),
    )


def value_and_gradients(attend, arrays, mask, **how):
    """Returns the sums, and the gradients of all inputs for drawn cotangents of all sums."""

    @jax.jit
    def run(arrays):
        sums, pull = jax.vjp(lambda arrays: attend(**arrays, mask=mask, **how), arrays)
        rng = np.random.default_rng(1)
        draws = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), sums)
        return sums, pull(jax.tree.map(jnp.asarray, draws))[0]

    return run(arrays)


def assert_close(got, expected, tolerance=TOLERANCE):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@functools.cache
def plain_form(sizes):
    return value_and_gradients(plain, *draw(**dict(sizes)))


@pytest.mark.parametrize("case", CASES)
def test_values_and_all_gradients_equal_the_plain_form(case):
    sizes = dict(CASES[case])
    how = {"chunk": sizes.pop("chunk", 0)}
    got = value_and_gradients(shared.attend, *draw(**sizes), **how)
    expected = plain_form(tuple(sizes.items()))
    # Cotangents in bfloat16 are rounded once in both forms, but of sums in another order.
    tolerance = 2**-8 if sizes.get("dtype") == jnp.bfloat16 else TOLERANCE
    assert_close(got[0], expected[0])
    assert_close(got[1], expected[1], tolerance)
    if case == "example_without_elements":
        sums, gradients = got
        for x in (sums.content, sums.table, sums.total):
            assert not x[0].any()
        assert (sums.lse[0] == NOTHING).all()
        for name in set(FLOATS) - {"table"}:
            assert not gradients[name][0].any()
            assert gradients[name][1].any()


def test_masked_elements_do_not_matter():
    arrays, mask = draw(masked="some")
    sums, gradients = value_and_gradients(shared.attend, arrays, mask, chunk=5)
    hidden = ~mask[..., None]
    arrays["content"] = jnp.where(hidden, 1e6, arrays["content"])
    moved, _ = value_and_gradients(shared.attend, arrays, mask, chunk=5)
    assert_close(moved, sums, 0)
    assert not jnp.where(hidden, gradients["content"], 0).any()
    assert not jnp.where(mask, 0, gradients["inverse_std"]).any()


@pytest.mark.parametrize("shift", [-3e4, 3e4])
def test_extreme_logits(shift):
    """A softmax that is one-hot up to float32, far from zero: what overflows without a maximum."""
    arrays, _ = draw()
    arrays["g_content"] = 3e3 * arrays["g_content"]
    arrays["inverse_std"] = jnp.ones_like(arrays["inverse_std"])
    arrays["bias"] = arrays["bias"] + shift
    got = value_and_gradients(shared.attend, arrays, None, chunk=5)
    expected = value_and_gradients(plain, arrays, None)
    # Logits of 1e4 are themselves known to 1e-3 only, and so is the logarithm of their weights.
    assert_close(got, expected, 2e-3)


def test_bfloat16_operands_round_and_do_no_more():
    arrays, mask = draw(size=211, masked="some")
    exact = value_and_gradients(shared.attend, arrays, mask, chunk=50)
    rounded = value_and_gradients(shared.attend, arrays, mask, chunk=50, operands="bfloat16")
    assert_close(rounded, exact, 3e-2)
    assert np.abs(rounded[0].content - exact[0].content).max() > 1e-4


def loss(arrays):
    sums = shared.attend(**arrays, chunk=5)
    return sum(jnp.square(x).sum() for x in sums)


def test_under_transformations():
    arrays, _ = draw(size=20)
    gradient = jax.jit(jax.grad(loss))
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), arrays)
    each = [gradient(jax.tree.map(lambda x, i=i: x[i], many)) for i in range(2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *each)

    def scanned(many):
        return jax.lax.scan(lambda total, one: (total + loss(one), None), 0.0, many)[0]

    assert_close(jax.jit(jax.grad(jax.checkpoint(loss)))(arrays), each[0])
    assert_close(jax.jit(jax.grad(lambda x: jax.vmap(loss)(x).sum()))(many), stacked)
    assert_close(jax.jit(jax.grad(scanned))(many), stacked)


def test_examples_split_over_devices():
    arrays, _ = draw(size=20, batch=8)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.PartitionSpec("data")
    specs = dict.fromkeys(arrays, split) | {"table": jax.sharding.PartitionSpec()}

    def local(arrays):
        return loss(arrays)[None]

    def total(arrays):
        return jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=split, check_vma=False)(
            arrays
        ).sum()

    assert_close(jax.jit(jax.grad(total))(arrays), jax.jit(jax.grad(loss))(arrays))


def shapes(size, *, features=3, p=61, queries=128, batch=2):
    floats = {
        "content": (batch, size, features),
        "table": (size, p),
        "g_content": (batch, queries, features),
        "g_table": (batch, queries, p),
        "bias": (batch, queries),
        "inverse_std": (batch, size),
    }
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in floats.items()}


def test_memory_does_not_grow_with_the_elements():
    """Neither the scores nor a concatenated byte array are ever formed."""

    def temporary(size):
        step = jax.jit(jax.grad(lambda arrays: sum(map(jnp.sum, shared.attend(**arrays)))))
        return step.lower(shapes(size)).compile().memory_analysis().temp_size_in_bytes

    small, large = temporary(2**14), temporary(2**18)
    assert large < small + 2**18 * 4  # less than one more number for each element
    assert large < 16 * 2**20


def test_gradients_that_nobody_asks_for_are_not_computed():
    """Of a fixed table, inverse std and content, the backward pass forms no gradient."""

    def products(*names):
        def some(chosen, arrays):
            return sum(map(jnp.sum, shared.attend(**(arrays | chosen), chunk=512)))

        arrays = shapes(2**12)
        chosen = {name: arrays[name] for name in names}
        text = jax.jit(jax.grad(some)).lower(chosen, arrays).as_text()
        return text.count("dot_general")

    queries = ("g_content", "g_table", "bias")
    assert products(*queries) == 5  # two forward; scores, their slopes, queries
    assert products(*queries, "table") == 7


def test_table_must_fit():
    arrays, _ = draw()
    with pytest.raises(ValueError, match="belong together"):
        shared.attend(**(arrays | {"g_table": None}))
    with pytest.raises(ValueError, match=r"table \(22, 11\) and content .* differ in length"):
        shared.attend(**(arrays | {"table": arrays["table"][:22]}))
