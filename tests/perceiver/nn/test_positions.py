import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import Dense, LearnedTable, PerExample, SeparableFourier, fourier_features
from perceiver.nn.positions import coordinates, coordinates_at, frequencies

# A float32 angle of up to pi * resolution / 2 has been rounded about eight times (coordinate,
# frequency, two products, pi itself), each by up to 2^-24 of it; its sine moves by as much.
ROUNDING = 8 * np.pi / 2 * 2.0**-24


def expected(positions, bands, max_resolution):
    """Perceiver, section 3.2, in float64: all raw coordinates, all sines, all cosines."""
    positions = np.asarray(positions, np.float64)
    raw, sines, cosines = [], [], []
    for axis, resolution in enumerate(max_resolution):
        x = positions[..., axis]
        raw.append(x)
        for k in range(bands):
            frequency = 1 + (resolution / 2 - 1) * k / (bands - 1)
            sines.append(np.sin(np.pi * frequency * x))
            cosines.append(np.cos(np.pi * frequency * x))
    return np.stack(raw + sines + cosines, axis=-1)


def grid(dims):  # [M, d], row-major
    axes = [[-1 + 2 * i / (n - 1) for i in range(n)] for n in dims]
    return np.array(list(itertools.product(*axes)))


@pytest.mark.parametrize(
    ("dims", "bands", "resolution"),
    [
        ((13,), 5, (13,)),
        ((7, 11), 3, (7, 11)),
        ((7, 11), 3, (29, 31)),
        ((3, 5, 7), 2, (3, 5, 7)),
        ((224, 224), 64, (224, 224)),  # both papers' ImageNet
        ((56, 56), 64, (56, 56)),  # after the convolutional stem
        ((16, 23), 64, (224, 448)),
    ],
)
def test_grid_features_equal_the_formula(dims, bands, resolution):
    positions = SeparableFourier.of_grid(dims, bands=bands, max_resolution=resolution)
    dense = positions.dense()
    assert dense.dtype == jnp.float32
    assert dense.shape == (np.prod(dims), len(dims) * (2 * bands + 1))
    assert (positions.size, positions.channels, positions.dims) == (*dense.shape, dims)
    tolerance = ROUNDING * max(resolution)
    np.testing.assert_allclose(dense, expected(grid(dims), bands, resolution), atol=tolerance)


def test_imagenet_has_258_position_channels():
    assert SeparableFourier.of_grid((224, 224), bands=64).channels == 258


def test_point_clouds_reach_a_resolution_of_1120(rng):
    # Perceiver, section 4.3 (ModelNet40): ten times the highest frequency of ImageNet's 224 pixels
    points = rng.uniform(-1, 1, (2, 17, 3)).astype(np.float32)
    resolution = (1120, 1120, 1120)
    features = fourier_features(jnp.asarray(points), bands=64, max_resolution=resolution)
    assert features.shape == (2, 17, 3 * 129)
    tolerance = ROUNDING * 1120
    np.testing.assert_allclose(features, expected(points, 64, resolution), atol=tolerance)


@pytest.mark.parametrize("dims", [(13,), (5, 7), (2, 3, 5)])
def test_separable_features_are_exactly_those_of_the_grid_points(dims):
    axes = jnp.meshgrid(*[coordinates(n) for n in dims], indexing="ij")
    points = jnp.stack(axes, axis=-1)  # [*dims, d]
    resolution = tuple(n + 1 for n in dims)
    features = fourier_features(points, bands=3, max_resolution=resolution)
    separable = SeparableFourier.of_grid(dims, bands=3, max_resolution=resolution)
    np.testing.assert_array_equal(
        separable.dense(), features.reshape(separable.size, separable.channels)
    )


def test_resolution_is_the_grids_own_unless_given():
    own = SeparableFourier.of_grid((5, 7), bands=3)
    given = SeparableFourier.of_grid((5, 7), bands=3, max_resolution=(5, 7))
    np.testing.assert_array_equal(own.dense(), given.dense())
    # the swapped resolution must be seen
    other = SeparableFourier.of_grid((5, 7), bands=3, max_resolution=(7, 5))
    assert not np.array_equal(own.dense(), other.dense())


def test_channels_are_raw_then_sines_then_cosines_of_each_axis():
    y, x = 0.25, -0.5
    features = fourier_features(jnp.asarray([y, x]), bands=2, max_resolution=(4, 8))
    by_hand = [
        *(y, x),
        *(np.sin(np.pi * y), np.sin(2 * np.pi * y), np.sin(np.pi * x), np.sin(4 * np.pi * x)),
        *(np.cos(np.pi * y), np.cos(2 * np.pi * y), np.cos(np.pi * x), np.cos(4 * np.pi * x)),
    ]
    np.testing.assert_allclose(features, by_hand, atol=1e-6)


def test_coordinates_include_both_ends():
    np.testing.assert_allclose(coordinates(5), [-1, -0.5, 0, 0.5, 1])
    for n in (2, 3, 224):
        ends = coordinates(n)[jnp.asarray([0, -1])]
        np.testing.assert_array_equal(ends, [-1, 1])


def test_frequencies_run_from_one_to_half_the_resolution():
    np.testing.assert_allclose(frequencies(4, 14), [1, 3, 5, 7])


def test_coordinates_and_resolutions_must_agree():
    with pytest.raises(ValueError, match=r"have 2 coordinates, but max_resolution \(5,\) has 1"):
        fourier_features(jnp.zeros((3, 2)), bands=2, max_resolution=(5,))
    with pytest.raises(ValueError, match=r"\(5, 7\) needs one number per axis of the grid \(3,\)"):
        SeparableFourier.of_grid((3,), bands=2, max_resolution=(5, 7))


def test_dense_and_per_example_tell_their_size(rng):
    table, features = jnp.zeros((3, 5)), jnp.zeros((2, 3, 5))
    for positions in (Dense(table), PerExample(features)):
        assert (positions.size, positions.channels) == (3, 5)
        assert positions.dense().shape[-2:] == (3, 5)


def test_learned_table_draws_from_a_normal_cut_at_two_deviations(key):
    transformed = hk.transform(lambda: LearnedTable(size=211, channels=101, name="table")())
    (table,) = jax.tree.leaves(transformed.init(key))
    assert table.shape == (211, 101)
    assert np.abs(table).max() <= 2 * 0.02 + 1e-7
    # a unit normal cut at 2 has standard deviation 0.8796
    np.testing.assert_allclose(table.std(), 0.8796 * 0.02, rtol=0.02)


@pytest.mark.parametrize(("size", "channels"), [(211, 101), (1, 4), (7, 1)])
def test_a_learned_table_may_start_as_sinusoids(size, channels, key):
    form = {"size": size, "channels": channels, "scale": 0.3, "start": "sinusoids"}
    make = hk.transform(lambda: LearnedTable(**form, name="table")())
    rows = np.asarray(make.init(key)["table"]["table"])
    waves = -(-channels // 2)
    for m, row in enumerate(rows):
        angles = [m / size ** (k / waves) for k in range(waves)]
        pairs = np.array([(np.sin(a), np.cos(a)) for a in angles]).ravel()[:channels]
        np.testing.assert_allclose(row, 0.3 * np.sqrt(2) * pairs, atol=1e-6)
    if size > 100:
        alike = rows[:-9] / np.linalg.norm(rows[:-9], axis=1, keepdims=True)
        near, far = (np.mean(np.sum(alike[:-d] * alike[d:], axis=1)) for d in (1, 50))
        assert near > 0.8 > 0.6 > far


@pytest.mark.parametrize("size", [1, 4, 15])
def test_coordinates_may_end_one_step_before_one(size):
    points = coordinates(size, inclusive=False)
    np.testing.assert_allclose(points, [-1 + 2 * i / size for i in range(size)], atol=1e-7)


def test_a_grid_that_ends_before_one_has_the_features_of_its_points():
    dims, kind = (3, 4, 5), {"bands": 3, "max_resolution": (7, 11, 13)}
    grid = SeparableFourier.of_grid(dims, inclusive=False, **kind)
    points = coordinates_at(jnp.arange(60), dims)
    np.testing.assert_array_equal(grid.dense(), fourier_features(points, **kind))
    np.testing.assert_array_equal(points[-1], coordinates_at(jnp.array([59]), dims)[0])
    np.testing.assert_allclose(points[-1], [1 / 3, 1 / 2, 3 / 5], atol=1e-6)
    np.testing.assert_allclose(points[7], [-1, -1 / 2, -1 / 5], atol=1e-6)
