"""Attention to a separable grid equals the dense form, in values and in all gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from perceiver.cross_attention import grid, separable
from perceiver.cross_attention.merge import NOTHING
from perceiver.cross_attention.separable import Sums

TOLERANCE = 1e-5  # of the largest magnitude
BF16_TOLERANCE = 4 * 2.0**-8  # bfloat16 keeps 8 bits
FLOATS = ("content", "g", "biases", "inverse_std")


def draw(dims, *, batch=2, queries=5, channels=3, masking="none", dtype=jnp.float32, scale=1.0):
    """Returns the float inputs by name, and the mask."""
    rng, size = np.random.default_rng(0), math.prod(dims)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    arrays = {
        "content": normal(batch, *dims, channels).astype(dtype),
        "g": scale * normal(batch, queries, channels),
        "biases": tuple(scale * normal(batch, queries, n) for n in dims),
        "inverse_std": jnp.exp(0.3 * normal(batch, size)),
    }
    mask = rng.random((batch, size)) < 0.6
    if masking == "an example":
        mask[0] = False
    if masking == "both ends":
        mask[:, : size // 3], mask[:, -(size // 3) :] = False, False
    return arrays, None if masking == "none" else jnp.asarray(mask)


def dense(content, g, biases, inverse_std, mask=None) -> Sums:
    """All Q x M logits at once, as the definition has them."""
    batch, *dims, channels = content.shape
    content = content.astype(jnp.float32).reshape(batch, -1, channels)
    logits = jnp.einsum("bqf,bmf->bqm", g, content)
    for axis, bias in enumerate(biases):
        others = [2 + i for i in range(len(dims)) if i != axis]
        full = jnp.broadcast_to(jnp.expand_dims(bias, others), (*bias.shape[:2], *dims))
        logits = logits + full.reshape(logits.shape)
    logits = logits * inverse_std[:, None]
    real = jnp.broadcast_to(True if mask is None else mask[:, None], logits.shape)
    sees = real.any(axis=-1)
    lse = jax.nn.logsumexp(jnp.where(real, logits, NOTHING), axis=-1)
    p = jnp.exp(jnp.where(real, logits - lse[..., None], NOTHING)) * inverse_std[:, None]
    on_grid = p.reshape(*p.shape[:2], *dims)
    axes = tuple(
        on_grid.sum(axis=[2 + i for i in range(len(dims)) if i != axis])
        for axis in range(len(dims))
    )
    return Sums(jnp.einsum("bqm,bmf->bqf", p, content), axes, jnp.where(sees, lse, NOTHING))


def weigh(sums: Sums) -> jax.Array:
    """A scalar to differentiate, in which every output has its own, uneven part."""
    leaves = jax.tree.leaves(sums._replace(lse=jnp.where(sums.lse > NOTHING / 2, sums.lse, 0.0)))
    return sum((jnp.cos(i + jnp.arange(x.size)) * x.ravel()).sum() for i, x in enumerate(leaves))


def differentiate(attend, arrays, mask, **how):
    """Returns the sums and the gradients of their weighted total, by name."""

    @jax.jit
    def run(arrays, mask):
        def f(arrays):
            sums = attend(**arrays, mask=mask, **how)
            return weigh(sums), sums

        gradients, sums = jax.grad(f, has_aux=True)(arrays)
        return sums, gradients

    return run(arrays, mask)


def assert_near(actual, expected, tolerance=TOLERANCE):
    def check(path, x, y):
        x, y = (np.asarray(a, np.float32) for a in (x, y))
        assert np.isfinite(x).all(), path
        error, size = np.abs(x - y).max(), np.abs(y).max()
        assert error <= tolerance * size, f"{jax.tree_util.keystr(path)}: {error:.2e} of {size:.2e}"

    jax.tree_util.tree_map_with_path(check, actual, expected)


def assert_equals_dense(arrays, mask, tolerance=TOLERANCE, **how):
    actual = differentiate(separable.attend, arrays, mask, **how)
    assert_near(actual, differentiate(dense, arrays, mask), tolerance)


@example(dims=[5, 7], batch=2, channels=3, masking="an example", chunk=13)
@example(dims=[2, 3, 5], batch=2, channels=7, masking="both ends", chunk=13)
@given(
    dims=st.lists(st.sampled_from([1, 2, 3, 5, 7, 11]), min_size=2, max_size=3),
    batch=st.sampled_from([1, 2]),
    channels=st.sampled_from([1, 3, 5, 7]),
    masking=st.sampled_from(["none", "some", "an example", "both ends"]),
    chunk=st.sampled_from([0, 1, 13, 29]),
)
def test_values_and_gradients_equal_the_dense_form(dims, batch, channels, masking, chunk):
    arrays, mask = draw(dims, batch=batch, channels=channels, masking=masking)
    assert_equals_dense(arrays, mask, chunk=chunk)


@pytest.mark.parametrize(
    ("rows", "channels"), [(3, 3), (grid.FEW_ROWS + 3, 7), (grid.FEW_ROWS + 3, 3), (1000, 7)]
)
def test_any_number_of_rows_per_step(rows, channels):
    arrays, mask = draw((23, 5), channels=channels, masking="some")
    assert_equals_dense(arrays, mask, chunk=5 * rows)


@pytest.mark.parametrize("dims", [(3, 11), (2, 3, 13)])
def test_a_wide_grid_is_scanned_along_its_last_axis(dims, monkeypatch):
    arrays, mask = draw(dims, masking="some")
    monkeypatch.setattr(separable, "_WIDE", 7)
    shapes = []
    attend = grid.attend
    monkeypatch.setattr(
        grid, "attend", lambda steps, f, *a: shapes.append(f.shape) or attend(steps, f, *a)
    )
    assert_equals_dense(arrays, mask, chunk=math.prod(dims[:-1]))
    assert shapes[0] == (2, dims[-1], math.prod(dims[:-1]), 3)


def test_more_than_three_axes():
    arrays, mask = draw((2, 3, 2, 5), masking="some")
    assert_equals_dense(arrays, mask, chunk=11)


def test_an_example_without_elements_gives_zeros_and_no_gradient():
    arrays, mask = draw((5, 7), masking="an example")
    sums, gradients = differentiate(separable.attend, arrays, mask, chunk=14)
    for x in (sums.content, *sums.axes, *jax.tree.leaves(gradients)):
        assert not np.asarray(x[0]).any()
        assert np.asarray(x[1]).any()
    np.testing.assert_array_equal(sums.lse[0], jnp.float32(NOTHING))


def test_masked_elements_have_no_influence():
    arrays, mask = draw((5, 7), masking="some")
    hidden = ~mask.reshape(2, 5, 7, 1)
    other = arrays | {"content": arrays["content"] + jnp.where(hidden, 100.0, 0.0)}
    np.testing.assert_array_equal(
        separable.attend(**arrays, mask=mask).axes[1], separable.attend(**other, mask=mask).axes[1]
    )
    gradients = differentiate(separable.attend, arrays, mask)[1]
    assert not np.asarray(jnp.where(hidden, gradients["content"], 0.0)).any()


@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_logits(sign):
    """Of +-1e4 and more, rising or falling row by row; each query sees one element or a few."""
    arrays, _ = draw((7, 11), scale=1e4)
    rising = jnp.broadcast_to(sign * 1e4 * jnp.arange(7.0)[None, None], (2, 5, 7))
    arrays["biases"] = (rising, arrays["biases"][1])
    sums, gradients = differentiate(separable.attend, arrays, None, chunk=11)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((sums, gradients)))
    assert_near(sums, dense(**arrays))


def test_bfloat16_content():
    arrays, mask = draw((7, 5), dtype=jnp.bfloat16)
    sums, gradients = differentiate(separable.attend, arrays, mask, chunk=10)
    assert gradients["content"].dtype == jnp.bfloat16
    expected_sums, expected = differentiate(dense, arrays, mask)
    assert_near(sums, expected_sums)
    assert_near(gradients.pop("content"), expected.pop("content"), 2.0**-8)
    assert_near(gradients, expected)


@pytest.mark.parametrize("channels", [3, 7])
def test_bfloat16_operands_round_products_only(channels):
    arrays, mask = draw((7, 5), channels=channels, masking="some")
    assert_equals_dense(arrays, mask, BF16_TOLERANCE, operands="bfloat16")
    rounded = separable.attend(**arrays, mask=mask, operands="bfloat16")
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(rounded))
    exact = separable.attend(**arrays, mask=mask)
    assert np.abs(rounded.content - exact.content).max() > 1e-4


ALL = functools.partial(differentiate, separable.attend, mask=None, chunk=10)


def test_vmap():
    arrays, _ = draw((7, 5))
    stacked = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x, -x]), arrays)
    actual = jax.jit(jax.vmap(ALL))(stacked)
    alone = jax.jit(ALL)
    one_by_one = [alone(jax.tree.map(lambda x, i=i: x[i], stacked)) for i in range(3)]
    assert_near(actual, jax.tree.map(lambda *x: jnp.stack(x), *one_by_one))


def test_checkpoint_and_scan():
    """As a recurrent reader has it: the same inputs are read again and again."""
    arrays, _ = draw((7, 5))

    def read(attend, arrays):
        def body(g, _):
            sums = attend(arrays["content"], g, arrays["biases"], arrays["inverse_std"])
            return g + 0.1 * sums.content, None

        return jax.lax.scan(jax.checkpoint(body), arrays["g"], None, length=3)[0].sum()

    actual = jax.jit(jax.grad(functools.partial(read, separable.attend)))(arrays)
    assert_near(actual, jax.jit(jax.grad(functools.partial(read, dense)))(arrays))


@pytest.mark.parametrize("how", ["jit", "shard_map"])
def test_examples_split_over_devices(how):
    arrays, _ = draw((7, 5), batch=8)
    expected = jax.tree.map(np.asarray, jax.jit(read_gradients)(arrays))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    spec = PartitionSpec("data")
    if how == "jit":
        placed = jax.device_put(arrays, NamedSharding(mesh, spec))
        compiled = jax.jit(read_gradients).lower(placed).compile()
        assert "all-" not in compiled.as_text()  # no device needs anything of another
        actual = compiled(placed)
    else:
        split = jax.shard_map(read_gradients, mesh=mesh, in_specs=spec, out_specs=spec)
        actual = jax.jit(split)(arrays)
    assert_near(jax.block_until_ready(actual), expected)


def read_gradients(arrays):
    def f(arrays):
        sums = separable.attend(**arrays, chunk=10)
        return sum((x**2).sum() for x in jax.tree.leaves(sums))

    return jax.grad(f)(arrays)


def temp_bytes(names, dims, channels, queries, **how) -> int:
    """Temporary memory of the gradients by some of the inputs."""

    def f(wanted, others):
        return weigh(separable.attend(**wanted, **others, **how))

    arrays, _ = draw(dims, batch=1, channels=channels, queries=queries)
    wanted = {name: arrays.pop(name) for name in names}
    compiled = jax.jit(jax.grad(f)).lower(wanted, arrays).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_of_gradients_is_small_and_bounded_by_the_chunk():
    dims, queries = (128, 97), 64
    all_scores = 4 * queries * math.prod(dims)
    one_row = temp_bytes(FLOATS, dims, 3, queries, chunk=97)
    assert one_row < all_scores / 10
    assert temp_bytes(FLOATS, dims, 3, queries, chunk=97 * 64) > 5 * one_row


def test_gradients_of_content_are_computed_only_if_asked_for():
    dims, channels = (32, 31), 257
    gradients_of_content = 4 * math.prod(dims) * channels
    assert temp_bytes(("g", "biases"), dims, channels, 3, chunk=31) < gradients_of_content / 4


def test_automatic_steps(monkeypatch):
    def rows(batch, queries=512, chunk=0):
        return separable._rows_per_step((batch, 224, 224), queries, chunk)

    assert [rows(1), rows(2), rows(16)] == [8, 4, 1]
    assert rows(1, queries=16) == grid.FEW_ROWS
    assert [rows(1, chunk=n) for n in (1, 400, 10**9)] == [1, 2, 224]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert rows(2) == 224
    assert rows(16) == 32  # 36 would fit, and leave 8 for the last step


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"content": a["content"][:, 0]}, "two or more axes"),
        (lambda a: a | {"g": a["g"][..., 1:]}, r"must be \[\(2, 5, 3\), \(2, 5, 7\), \(2, 5, 11\)"),
        (lambda a: a | {"biases": a["biases"][::-1]}, "one bias per axis"),
        (lambda a: a | {"biases": a["biases"][:1]}, "one bias per axis"),
        (lambda a: a | {"inverse_std": a["inverse_std"][:, 1:]}, r"inverse_std must be \(2, 77\)"),
        (lambda a: a | {"mask": jnp.ones((2, 7, 11), bool)}, r"mask must be \(2, 77\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    arrays, _ = draw((7, 11))
    with pytest.raises(ValueError, match=message):
        separable.attend(**change(arrays))
