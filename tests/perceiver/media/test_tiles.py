"""Tiles cover any image; where they overlap, their mean is weighted; nothing else changes."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from perceiver.media import tiles

SINTEL, RELEASED = (436, 1024), (368, 496)


def starts(size, tile, overlap=20):
    return [tiles.corners(n, side, overlap) for n, side in zip(size, tile, strict=True)]


def test_a_sintel_frame_takes_six_tiles():
    assert starts(SINTEL, RELEASED) == [[0, 68], [0, 476, 528]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [(11, [0]), (12, [0, 1]), (18, [0, 7]), (19, [0, 7, 8]), (25, [0, 7, 14])],
)
def test_the_last_tile_ends_where_the_image_does(size, expected):
    assert tiles.corners(size, 11, overlap=4) == expected


@hypothesis.given(st.data())
def test_tiles_cover_the_axis_overlap_enough_and_are_different(data):
    tile = data.draw(st.integers(1, 30))
    size, overlap = data.draw(st.integers(tile, 200)), data.draw(st.integers(0, tile - 1))
    found = tiles.corners(size, tile, overlap)
    assert found[0] == 0
    assert found[-1] == size - tile
    steps = np.diff(found)
    assert (steps > 0).all()
    assert (steps <= tile - overlap).all()
    # one fewer would not do
    assert (len(found) - 2) * (tile - overlap) + tile < size or len(found) == 1


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "message"),
    [
        (12, 11, 11, r"overlap=11 must lie in \[0, 11\)"),
        (30, 11, -1, "overlap=-1"),
        (10, 11, 3, "an axis of 10 is shorter than a tile of 11; pad it"),
    ],
)
def test_tiles_that_cannot_be_are_refused(size, tile, overlap, message):
    with pytest.raises(ValueError, match=message):
        tiles.corners(size, tile, overlap)


def test_weights_are_the_distance_from_the_border():
    expected = [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(tiles.weights((4, 5)), expected)


def first_channels(frames):  # [B, 2, h, w, C] -> [B, h, w, 2]
    return np.stack([frames[:, 0, ..., 0], frames[:, 1, ..., 0]], axis=-1)


@hypothesis.given(
    height=st.integers(1, 40), width=st.integers(1, 40), tile=st.tuples(*[st.integers(5, 17)] * 2)
)
def test_what_depends_on_single_pixels_is_the_same_for_any_size(height, width, tile):
    """Constant flow is such, and a ramp, and that each pixel is covered."""
    frames = np.random.default_rng(0).normal(size=(2, 2, height, width, 3)).astype(np.float32)
    seen = []

    def apply(part):
        seen.append(part.shape)
        return first_channels(part)

    flow = tiles.tiled(apply, frames, tile=tile, overlap=4)
    assert flow.dtype == np.float32
    np.testing.assert_allclose(flow, first_channels(frames), atol=1e-6)
    assert set(seen) == {(2, 2, *tile, 3)}


def test_at_the_tiles_own_size_it_is_a_plain_call(rng):
    frames = rng.normal(size=(2, 2, 11, 13, 3)).astype(np.float32)

    def apply(part):  # depends on where a pixel lies in the tile
        return first_channels(part) * np.arange(13, dtype=np.float32)[:, None]

    np.testing.assert_array_equal(tiles.tiled(apply, frames, tile=(11, 13)), apply(frames))


def test_tiles_that_disagree_are_mixed_by_their_weights():
    answers = iter([0.0, 10.0])

    def apply(part):
        return np.full((1, *part.shape[2:4], 2), next(answers), np.float32)

    flow = tiles.tiled(apply, np.zeros((1, 2, 9, 14, 3), np.float32), tile=(9, 9), overlap=4)
    # the middle row: columns 5 to 8 are seen by both, with weights 4 3 2 1 against 1 2 3 4
    expected = [0] * 5 + [10 * new / 5 for new in (1, 2, 3, 4)] + [10] * 5
    np.testing.assert_allclose(flow[0, 4, :, 0], expected, rtol=1e-6)
    # the first: all of a border counts 1
    np.testing.assert_allclose(flow[0, 0, 5:9, 0], 5.0)


def test_small_frames_are_continued_by_their_border():
    frames = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4, 1)
    seen = []

    def apply(part):
        seen.append(part)
        return first_channels(part)

    flow = tiles.tiled(apply, frames, tile=(6, 7))
    np.testing.assert_array_equal(flow, first_channels(frames))
    (part,) = seen
    np.testing.assert_array_equal(part[0, 0, :, 3, 0], [2, 2, 6, 10, 10, 10])


def test_frames_of_another_rank_are_refused():
    with pytest.raises(ValueError, match=r"must be \[B, 2, H, W, C\], got \(2, 5, 7, 3\)"):
        tiles.tiled(first_channels, np.zeros((2, 5, 7, 3)), tile=(5, 7))
