"""Keys and values formed chunk by chunk give what forming all of them gives."""

import dataclasses
import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.cross_attention import shared, statistics, streaming
from perceiver.cross_attention.absorb import Weights, absorb_keys, apply_values
from perceiver.cross_attention.merge import NOTHING, merge
from perceiver.nn.byte_array import Segment
from perceiver.nn.positions import Dense, PerExample, SeparableFourier

TOLERANCE = 1e-5  # of the largest magnitude

CASES = {
    "one_step": {},
    "even_chunks_masked": {"dims": (21,), "chunk": 7, "masked": "some"},
    "single_elements": {"chunk": 1},
    "chunk_beyond_the_end": {"chunk": 100},
    "positions_of_each_example": {"kind": "each", "heads": 1, "chunk": 5},
    "fourier_1d": {"kind": "fourier", "chunk": 5},
    "fourier_3d": {"kind": "fourier", "dims": (2, 3, 5), "chunk": 7},
    "constant_features": {"kind": "fourier", "dims": (5, 7), "constant": 3, "chunk": 9},
    "no_positions": {"kind": "none", "constant": 3, "prepared": True, "chunk": 9},
    "example_without_elements": {"masked": "all", "chunk": 5},
}


def draw(
    *, dims=(23,), kind="dense", constant=0, masked="none", heads=2, prepared=False, batch=2, n=3
):
    """Returns queries, segment and weights."""
    rng, size = np.random.default_rng(0), int(np.prod(dims))

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * rng.standard_normal(shape), jnp.float32)

    positions = {
        "none": lambda: None,
        "dense": lambda: Dense(normal(size, 7)),
        "each": lambda: PerExample(normal(batch, size, 7)),
        "fourier": lambda: SeparableFourier.of_grid(dims, bands=2),
    }[kind]()
    mask = rng.random((batch, size)) < 0.6
    if masked == "all":
        mask[0] = False
    segment = Segment(
        normal(batch, *dims, 5) + 0.3,
        positions,
        constant=normal(constant) if constant else None,
        mask=None if masked == "none" else jnp.asarray(mask),
    )
    if prepared:
        segment = dataclasses.replace(segment, inverse_std=statistics.inverse_std(segment))
    c, keys, values = segment.channels, 4 * heads, 3 * heads
    weights = Weights(
        scale=1 + normal(c, scale=0.2),
        offset=normal(c, scale=0.2),
        key_w=normal(c, keys, scale=c**-0.5),
        key_b=normal(keys),
        value_w=normal(c, values, scale=c**-0.5),
        value_b=normal(values),
    )
    return normal(batch, n, heads, 4), segment, weights


def plain(q, segment, weights):
    """Normalises, projects and attends to all elements at once."""
    x = segment.dense().astype(jnp.float32)
    x = x - x.mean(axis=-1, keepdims=True)
    inverse_std = segment.inverse_std
    if inverse_std is None:
        inverse_std = jax.lax.rsqrt(jnp.square(x).mean(axis=-1) + 1e-5)
    x = x * inverse_std[..., None] * weights.scale[None, None]
    batch, _, heads, width = q.shape
    # Without offset and bias: what they add is the same for all elements.
    k = (x @ weights.key_w).reshape(batch, -1, heads, width)
    x = x + weights.offset[None, None]
    v = (x @ weights.value_w + weights.value_b[None, None]).reshape(batch, k.shape[1], heads, -1)
    logits = jnp.einsum("bnhc,bmhc->bnhm", q.astype(jnp.float32), k) / width**0.5
    real = jnp.ones_like(logits, bool)
    if segment.mask is not None:
        real = jnp.broadcast_to(segment.mask[:, None, None], real.shape)
    logits = jnp.where(real, logits, NOTHING)
    p = jnp.where(real, jax.nn.softmax(logits, axis=-1), 0.0)
    lse = jnp.where(real.any(axis=-1), jax.nn.logsumexp(logits, axis=-1), NOTHING)
    return jnp.einsum("bnhm,bmhv->bnhv", p, v), lse


def value_and_gradients(attend, q, segment, weights, **how):
    """Returns the outputs, and the gradients of all inputs for drawn cotangents of both."""

    @jax.jit
    def run(q, floats, weights):
        def outputs(q, floats, weights):
            return attend(q, dataclasses.replace(floats, mask=segment.mask), weights, **how)

        y, pull = jax.vjp(outputs, q, floats, weights)
        rng = np.random.default_rng(1)
        draws = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), y)
        return y, pull(jax.tree.map(jnp.asarray, draws))

    return run(q, dataclasses.replace(segment, mask=None), weights)


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
    got = value_and_gradients(streaming.attend, *draw(**sizes), **how)
    assert_close(got, plain_form(tuple(sizes.items())))
    if case == "example_without_elements":
        (y, lse), gradients = got
        assert not y[0].any()
        assert (lse[0] == NOTHING).all()
        for x in (gradients[0], gradients[1].content):
            assert not x[0].any()
            assert x[1].any()
    assert not got[1][2].key_b.any()  # exactly zero: no rounding noise for an optimiser to follow


def test_bfloat16_inputs_are_read_exactly():
    q, segment, weights = draw(kind="fourier", dims=(5, 7))
    narrow = dataclasses.replace(segment, content=segment.content.astype(jnp.bfloat16))
    q = q.astype(jnp.bfloat16)
    y, gradients = value_and_gradients(streaming.attend, q, narrow, weights, chunk=9)
    # The dense form itself would round positions to the content's dtype.
    wide = dataclasses.replace(segment, content=narrow.content.astype(jnp.float32))
    exact, expected = value_and_gradients(plain, q.astype(jnp.float32), wide, weights)
    assert_close(y, exact)
    assert gradients[0].dtype == gradients[1].content.dtype == jnp.bfloat16
    # The content's is the sum of two cotangents in bfloat16, by way of values and of inverse std.
    wide_gradients = jax.tree.map(lambda x: x.astype(jnp.float32), gradients)
    assert_close(wide_gradients, expected, 2**-7)
    assert_close(gradients[2], expected[2])


def test_extreme_logits():
    """A softmax that is one-hot up to float32: what overflows without a maximum."""
    q, segment, weights = draw()
    got = value_and_gradients(streaming.attend, 1e4 * q, segment, weights, chunk=5)
    expected = value_and_gradients(plain, 1e4 * q, segment, weights)
    # Logits of 1e4 are themselves known to 1e-3 only, and so is the logarithm of their weights.
    assert_close(got, expected, 2e-3)


def test_bfloat16_operands_round_and_do_no_more():
    inputs = draw(dims=(211,), masked="some")
    exact = value_and_gradients(streaming.attend, *inputs, chunk=50)
    rounded = value_and_gradients(streaming.attend, *inputs, chunk=50, operands="bfloat16")
    assert_close(rounded, exact, 3e-2)
    assert np.abs(rounded[0][0] - exact[0][0]).max() > 1e-4


def test_merges_with_what_absorbed_paths_give():
    """The log-sum-exps of both kinds of paths leave out the same constants."""
    q, segment, weights = draw(kind="none", dims=(24,), prepared=True)
    halves = [
        jax.tree.map(lambda x: x[:, :11], segment),
        jax.tree.map(lambda x: x[:, 11:], segment),
    ]
    streamed = streaming.attend(q, halves[0], weights)
    sums = shared.attend(
        halves[1].content,
        None,
        absorb_keys(q, weights),
        None,
        jnp.zeros((2, 6)),
        halves[1].inverse_std,
    )
    absorbed = (
        apply_values(sums.content, jnp.ones((2, 3, 2, 1)), weights),
        sums.lse.reshape(2, 3, 2),
    )
    assert_close(merge([streamed, absorbed]), streaming.attend(q, segment, weights))


@pytest.mark.parametrize("dims", [(13,), (5, 7), (2, 3, 5)])
def test_rows_of_a_grid_are_rows_of_its_dense_positions(dims):
    positions = SeparableFourier.of_grid(dims, bands=3)
    for start, length in ((0, positions.size), (3, 8), (positions.size - 1, 1)):
        rows = jax.jit(streaming.rows_of, static_argnums=2)(positions, start, length)
        np.testing.assert_array_equal(rows, positions.dense()[start : start + length])


def loss(inputs):
    y, lse = streaming.attend(*inputs, chunk=5)
    return jnp.square(y).sum() + jnp.square(lse).sum()


def test_under_transformations():
    inputs = draw(kind="none", dims=(20,))
    gradient = jax.jit(jax.grad(loss))
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), inputs)
    each = [gradient(jax.tree.map(lambda x, i=i: x[i], many)) for i in range(2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *each)

    def scanned(many):
        return jax.lax.scan(lambda total, one: (total + loss(one), None), 0.0, many)[0]

    assert_close(jax.jit(jax.grad(jax.checkpoint(loss)))(inputs), each[0])
    assert_close(jax.jit(jax.grad(lambda x: jax.vmap(loss)(x).sum()))(many), stacked)
    assert_close(jax.jit(jax.grad(scanned))(many), stacked)


def test_memory_does_not_grow_with_the_elements():
    """Of 65,536 elements neither features, nor keys, nor values exist at the same time."""
    batch, n, heads, width, bands, dims = 2, 64, 8, 32, 32, (256, 256)
    channels = 3 + 2 * (2 * bands + 1)

    def float32(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    grid = SeparableFourier.of_grid(dims, bands=bands)
    projection = (float32(channels, heads * width), float32(heads * width))
    weights = Weights(float32(channels), float32(channels), *projection, *projection)

    def total(q, segment, weights):
        return streaming.attend(q, segment, weights)[0].sum()

    step = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    segment = Segment(float32(batch, *dims, 3), grid)
    lowered = step.lower(float32(batch, n, heads, width), segment, weights)
    temporary = lowered.compile().memory_analysis().temp_size_in_bytes
    features = 4 * batch * segment.size * channels  # bytes; keys and values would be 4 times that
    assert temporary < features / 3


def test_few_elements_with_wide_positions_do_not_crash_the_compiler():
    """jaxlib 0.10.2's CPU backend did, where the batch shared so short a product."""
    program = """
import jax, jax.numpy as jnp
from perceiver.nn.byte_array import Segment
from perceiver.cross_attention import Weights, streaming
from perceiver.nn.positions import Dense
segment = Segment(jnp.ones((2, 16, 3)), Dense(jnp.ones((16, 258))))
weights = Weights(*(jnp.ones(s) for s in ((261,), (261,), *((261, 261), (261,)) * 2)))
f = lambda q, w: streaming.attend(q, segment, w)[0].sum()
jax.block_until_ready(jax.jit(jax.grad(f, argnums=(0, 1)))(jnp.ones((2, 64, 1, 261)), weights))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)
