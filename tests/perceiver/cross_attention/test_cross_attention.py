"""Every path computes the function, and the gradients, that the dense form defines."""

import dataclasses
import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import perceiver
from perceiver import cross_attention
from perceiver.cross_attention import Sequence, Sizes, Weights
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.positions import Dense, PerExample, SeparableFourier

TOLERANCE = 1e-5  # of the largest magnitude
PATHS = ("auto", "streaming", "shared")


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes and structure of one cross-attention."""

    grids: tuple[tuple[tuple[int, ...], str], ...]  # (dims, kind of positions) of each segment
    channels: int = 5  # of the content of the first segment
    batch: int = 2
    queries: int = 3
    heads: int = 1
    masked: str = "none"  # none, some, all (of the first example)
    chunk: int = 0
    seed: int = 0


def draw(case: Case):
    """Returns (differentiable arrays, function of them -> byte array, sizes)."""
    rng = np.random.default_rng(case.seed)

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * rng.standard_normal(shape), jnp.float32)

    def positions(dims, kind):
        size, width = int(np.prod(dims)), 7
        if kind == "fourier":
            return SeparableFourier.of_grid(dims, bands=3)
        kinds = {"dense": (Dense, (size, width)), "each": (PerExample, (case.batch, size, width))}
        return kinds[kind][0](normal(*kinds[kind][1])) if kind in kinds else None

    widths = [
        case.channels + (positions(dims, kind).channels if kind != "none" else 0)
        for dims, kind in case.grids
    ]
    total = max(widths) + (len(widths) > 1)  # with several segments each is padded
    segments = []
    for (dims, kind), width in zip(case.grids, widths, strict=True):
        mask = None
        if case.masked != "none":
            mask = np.asarray(rng.random((case.batch, int(np.prod(dims)))) < 0.7)
            mask[0] = mask[0] & (case.masked != "all")
        segments.append(
            Segment(
                normal(case.batch, *dims, case.channels) + 0.3,
                positions(dims, kind),
                constant=normal(total - width) if total > width else None,
                mask=mask,
                name=f"{kind}{len(segments)}",
            )
        )
    c, v = 4 * case.heads, 3 * case.heads
    q = normal(case.batch, case.queries, case.heads, 4)
    weights = Weights(
        scale=1 + normal(total, scale=0.2),
        offset=normal(total, scale=0.2),
        key_w=normal(total, c, scale=total**-0.5),
        key_b=normal(c),
        value_w=normal(total, v, scale=total**-0.5),
        value_b=normal(v),
    )
    sizes = Sizes(queries=case.queries, heads=case.heads, qk_channels=c, v_channels=v)
    return q, ByteArray.of(*segments), weights, sizes


@functools.cache
def compiled(case: Case, path: str, sequence: Sequence | None = None):
    """Returns `value_and_grad` as a function of q, arrays and weights, and those of the case."""
    q, byte_array, weights, sizes = draw(case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_attention.plan, "FEW_WEIGHTS", 0)  # "auto" may choose at these sizes
        plan = cross_attention.choose(byte_array, sizes, drops=False, path=path)
    compute = Compute(chunk=case.chunk)

    def loss(q, trainable, weights):
        filled = jax.tree.map(
            lambda old, new: old if new is None else new,
            byte_array,
            trainable,
            is_leaf=lambda x: x is None,
        )
        filled = dataclasses.replace(filled, sequence=sequence)
        y = cross_attention.attend(q, filled, weights, plan, compute=compute)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)), y

    # masks are not differentiated
    trainable = jax.tree.map(lambda x: None if x.dtype == bool else x, byte_array)
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))

    def run(*arrays):
        (_, y), (dq, d_trainable, d_weights) = gradient(*arrays)
        return y, (dq, d_trainable, d_weights._replace(key_b=jnp.zeros_like(d_weights.key_b)))

    return run, (q, trainable, weights)


def value_and_grad(case: Case, path: str, sequence: Sequence | None = None):
    """Returns (output, gradients of q, content, positions, constants, weights), no key bias."""
    run, arrays = compiled(case, path, sequence)
    return run(*arrays)


@functools.cache
def dense_form(case: Case):
    return value_and_grad(case, "plain")


def assert_close(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(a).all()
        # A gradient that vanishes is a difference of terms of order one.
        scale = max(float(np.abs(b).max()), 0.05)
        np.testing.assert_allclose(a, b, atol=TOLERANCE * scale, rtol=0)


CASES = {
    "grid": Case(grids=(((5, 7), "fourier"),)),
    "line": Case(grids=(((11,), "fourier"),)),
    "video": Case(grids=(((2, 3, 5), "fourier"),), masked="some"),
    "learned": Case(grids=(((4, 5), "dense"),), masked="some", chunk=3),
    "points": Case(grids=(((13,), "each"),)),
    "no positions": Case(grids=(((13,), "none"),), heads=2),
    "heads": Case(grids=(((5, 7), "fourier"),), heads=2, masked="some"),
    "leaves no input": Case(grids=(((5, 7), "fourier"),), masked="all"),
    "modalities": Case(
        grids=(((2, 3, 5), "fourier"), ((11,), "fourier"), ((1,), "none"), ((3, 2), "dense")),
        masked="some",
    ),
}


# "auto" is separable on grids, and elsewhere one of the others.
WAYS = {
    "auto": ("grid", "line", "video", "heads", "leaves no input", "modalities"),
    "streaming": ("video", "points", "heads", "leaves no input", "modalities"),
    "shared": ("grid", "learned", "points", "no positions", "leaves no input", "modalities"),
}


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for path, names in WAYS.items() for name in names]
)
def test_values_and_gradients_equal_the_dense_form(name, path):
    found = value_and_grad(CASES[name], path)
    assert_close(found, dense_form(CASES[name]))
    if name == "leaves no input":  # for the first example: it reads zeros
        assert not np.asarray(found[0][0]).any()
        assert np.asarray(found[0][1]).any()


def poison(arrays, where: str, value: float, mask=None):
    """Returns the arrays of a case with one number replaced."""
    q, byte_array, weights = arrays
    if where == "query":
        return q.at[1, 0, 0, 1].set(value), byte_array, weights
    if where in Weights._fields:
        array = getattr(weights, where)
        return q, byte_array, weights._replace(**{where: array.at[(1,) * array.ndim].set(value)})
    segment, *others = byte_array.segments  # an element of the second example, masked or not
    m = int(np.flatnonzero(mask[1] != where.startswith("masked"))[0])
    if where.endswith("positions"):
        positions = PerExample(segment.positions.features.at[1, m, 2].set(value))
        segment = dataclasses.replace(segment, positions=positions)
    else:
        at = (1, *np.unravel_index(m, segment.dims), 2)
        segment = dataclasses.replace(segment, content=segment.content.at[at].set(value))
    return q, dataclasses.replace(byte_array, segments=(segment, *others)), weights


POISONED = ("content", "masked content", "query", *Weights._fields)
MASKED_CASES = {  # with per-example and shared positions; a grid of one axis takes another path
    "grid": (Case(grids=(((5, 7), "fourier"),), masked="some", chunk=8), PATHS),
    "points": (Case(grids=(((13,), "each"),), masked="some", chunk=5), ("streaming", "shared")),
    "heads": (Case(grids=(((5, 7), "fourier"),), heads=2, masked="some"), ("auto", "shared")),
    "modalities": (CASES["modalities"], ("auto",)),
}


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name, (_, paths) in MASKED_CASES.items() for path in paths]
)
def test_what_is_not_finite_on_the_plain_path_is_so_on_every_path(name, path):
    """And nothing else, in values and gradients; what a mask excludes counts nowhere."""
    case, _ = MASKED_CASES[name]
    (plain, arrays), (run, _) = compiled(case, "plain"), compiled(case, path)
    mask = np.asarray(draw(case)[1].segments[0].mask)
    for where in POISONED + (("positions", "masked positions") if name == "points" else ()):
        for value in (np.nan, np.inf, -np.inf):
            bad = poison(arrays, where, value, mask)
            got, expected = (jax.tree.map(np.isfinite, f(*bad)) for f in (run, plain))
            np.testing.assert_array_equal(got[0], expected[0], err_msg=f"{where} {value}")
            assert expected[0].all() == where.startswith("masked")
            paths = jax.tree_util.tree_leaves_with_path(got[1])
            for (leaf, x), y in zip(paths, jax.tree.leaves(expected[1]), strict=True):
                message = f"gradient of {jax.tree_util.keystr(leaf)}, {where} {value}"
                np.testing.assert_array_equal(x, y, err_msg=message)


kinds = st.sampled_from(["fourier", "dense", "each", "none"])
dims = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)
cases = st.builds(
    Case,
    grids=st.lists(st.tuples(dims, kinds), min_size=1, max_size=3).map(tuple),
    channels=st.integers(3, 6),  # fewer become +-1 in the norm, and gradients vanish
    batch=st.integers(1, 3),
    queries=st.integers(1, 4),
    heads=st.integers(1, 3),
    masked=st.sampled_from(["none", "some", "all"]),
    chunk=st.integers(0, 9),
    seed=st.integers(0, 2**16),
)


@pytest.mark.slow
@hypothesis.settings(
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # a case compiles for seconds
)
@hypothesis.given(case=cases, path=st.sampled_from(PATHS))
def test_all_paths_are_one_function(case, path):
    assert_close(value_and_grad(case, path), value_and_grad(case, "plain"))


class TestSequence:
    @pytest.fixture
    def sequence(self):
        axes = (jax.sharding.AxisType.Auto,) * 2
        mesh = jax.make_mesh((2, 4), ("data", "sequence"), axis_types=axes)
        return Sequence(mesh, "sequence", batch_axis="data")

    @pytest.mark.parametrize("path", PATHS)
    def test_elements_split_over_devices_give_the_same(self, path, sequence):
        grids = (((8, 3), "fourier"), ((4, 2), "dense"), ((1,), "none"))
        case = Case(grids=grids, masked="some")
        assert_close(value_and_grad(case, path, sequence), dense_form(case))

    def test_what_is_not_finite_on_one_device_is_so_everywhere(self, sequence):
        case = Case(grids=(((8, 3), "fourier"),), masked="some")
        (plain, arrays), (run, _) = compiled(case, "plain"), compiled(case, "auto", sequence)
        mask = np.asarray(draw(case)[1].segments[0].mask)
        for where in ("content", "masked content", "query", "key_w"):
            bad = poison(arrays, where, np.nan, mask)
            got, expected = (jax.tree.map(np.isfinite, f(*bad)) for f in (run, plain))
            jax.tree.map(np.testing.assert_array_equal, got, expected)
            assert expected[0].all() == where.startswith("masked")

    def test_a_whole_model_trains_the_same(self, sequence):
        """Images split by rows, the batch over the other axis of the mesh."""
        spec = {"kind": "image_classifier", "image_shape": (40, 32, 3), "classes": 5, "bands": 4}
        spec |= {"latents": 8, "latent_channels": 16, "query_channels": 16, "layers": 1}
        images = jax.random.normal(jax.random.key(1), (2, 40, 32, 3))

        def value_and_grad(sequence, path):
            model = perceiver.build(spec | {"cross_path": path}, sequence=sequence)
            params, state = jax.jit(model.init)(jax.random.key(0))

            def loss(params):
                logits, _ = model.apply(params, state, None, {"image": images})
                return jnp.square(logits - 1).sum()

            value, grads = jax.jit(jax.value_and_grad(loss))(params)
            for attention in (path for path in grads if path.endswith("attention/key")):
                grads[attention]["b"] = jnp.zeros(())
            return value, grads

        assert_close(value_and_grad(sequence, "auto"), value_and_grad(None, "plain"))

    def test_no_device_gathers_the_inputs(self, sequence):
        """What crosses the network does not grow with M."""

        def communicated(rows):
            q, byte_array, weights, sizes = draw(Case(grids=(((rows, 64), "fourier"),)))
            plan = cross_attention.choose(byte_array, sizes, drops=False, path="separable")
            split = jax.sharding.NamedSharding(
                sequence.mesh, jax.sharding.PartitionSpec("data", "sequence")
            )
            content = jax.device_put(byte_array.segments[0].content, split)

            def loss(content, q):
                segment = dataclasses.replace(byte_array.segments[0], content=content)
                whole = ByteArray((segment,), sequence)
                return cross_attention.attend(q, whole, weights, plan).sum()

            text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(content, q).compile().as_text()
            lines = [line for line in text.splitlines() if "all-" in line and "=" in line]
            assert lines
            return sorted(line.split("=")[1].split("(")[0].strip() for line in lines)

        assert communicated(64) == communicated(128)

    def test_rows_that_do_not_divide_are_refused(self, sequence):
        segment = Segment(jnp.zeros((2, 50, 50, 3)), name="image")
        with pytest.raises(ValueError, match=r"'image': 50 rows .* evenly over 4 devices"):
            sequence.splits(segment)

    def test_a_small_segment_is_attended_to_whole(self, sequence):
        assert not sequence.splits(Segment(jnp.zeros((2, 1, 3))))

    def test_the_axis_must_be_of_the_mesh(self, sequence):
        with pytest.raises(ValueError, match="none named 'rows'"):
            Sequence(sequence.mesh, "rows")


def test_statistics_are_those_of_the_dense_array():
    _, byte_array, _, _ = draw(CASES["modalities"])
    prepared = cross_attention.prepare(byte_array)
    got = jnp.concatenate([s.inverse_std for s in prepared.segments], axis=1)
    expected = 1 / np.sqrt(np.asarray(byte_array.dense(), np.float64).var(-1) + 1e-5)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_statistics_survive_a_large_offset():
    """Without cancellation: a formula E[x^2] - E[x]^2 is wrong by 10 % here."""
    x = np.random.default_rng(0).standard_normal((1, 9, 16)).astype(np.float32) + 4096
    segment = Segment(jnp.asarray(x), Dense(jnp.full((9, 3), 4096.0)))
    dense = np.concatenate([x, np.full((1, 9, 3), 4096.0)], -1).astype(np.float64)
    got = cross_attention.inverse_std(segment)
    np.testing.assert_allclose(got, 1 / np.sqrt(dense.var(-1) + 1e-5), rtol=1e-4)
