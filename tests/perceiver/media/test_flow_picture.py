"""Colours of known directions and lengths."""

import numpy as np
import pytest

from perceiver.media.flow_picture import color_wheel, flow_picture


def color(u, v, **kwargs):
    return tuple(int(c) for c in flow_picture(np.array([[[u, v]]]), **kwargs)[0, 0])


def test_the_wheel_has_55_hues_of_full_saturation():
    wheel = color_wheel()
    assert wheel.shape == (55, 3)
    assert (wheel.max(axis=1) == 1).all()
    assert (wheel.min(axis=1) == 0).all()
    corners = [0, 15, 21, 25, 36, 49]  # red, yellow, green, cyan, blue, magenta
    expected = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]]
    np.testing.assert_array_equal(wheel[corners], expected)
    np.testing.assert_allclose(wheel[1], [1, 17 / 255, 0])
    assert len(np.unique(wheel, axis=0)) == 55


@pytest.mark.parametrize(
    ("u", "v", "expected"),
    [
        (1.0, 0.0, (255, 0, 0)),  # right: red
        (0.0, 1.0, (255, 229, 0)),  # down: nearly yellow
        (-1.0, 0.0, (0, 209, 255)),  # left: cyan
        (0.0, -1.0, (88, 0, 255)),  # up: blue-violet
        (0.0, 0.0, (255, 255, 255)),
    ],
)
def test_directions_have_their_colours(u, v, expected):
    assert color(u, v) == expected
    assert color(7 * u, 7 * v) == expected  # the longest is fully saturated, whatever its length


def test_right_is_on_the_red_side_from_above_and_below():
    for v in (-1e-3, 1e-3):
        red, green, blue = color(1.0, v)
        assert red == 255
        assert max(green, blue) < 50


def test_length_is_saturation():
    picture = flow_picture(np.array([[[2.0, 0.0], [1.0, 0.0], [0.5, 0.0]]]))
    np.testing.assert_array_equal(picture[0], [[255, 0, 0], [255, 127, 127], [255, 191, 191]])
    assert color(1.0, 0.0, max_flow=2.0) == (255, 127, 127)
    assert color(3.0, 0.0, max_flow=2.0) == (191, 0, 0)  # beyond: darker


def test_unknown_flow_is_black_and_does_not_count_as_the_longest():
    flow = np.array([[[1.0, 0.0], [np.nan, 0.0], [0.0, 1e10], [np.inf, 0.0]]], np.float32)
    picture = flow_picture(flow)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[0, 0], [255, 0, 0])
    np.testing.assert_array_equal(picture[0, 1:], np.zeros((3, 3)))
    assert not flow_picture(np.full((2, 3, 2), np.nan)).any()


def test_opposite_directions_differ_and_the_picture_has_the_flows_shape(rng):
    flow = rng.normal(size=(5, 7, 2))
    there, back = (flow_picture(sign * flow).astype(int) for sign in (1, -1))
    assert there.shape == (5, 7, 3)
    assert (np.abs(there - back).max(axis=-1) > 0).all()


@pytest.mark.parametrize("shape", [(2, 5, 7, 2), (5, 7, 3), (5, 7)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"flow must be \[H, W, 2\]"):
        flow_picture(np.zeros(shape))


@pytest.mark.parametrize("max_flow", [0.0, -1.0, np.nan])
def test_a_longest_flow_that_is_not_positive_is_refused(max_flow):
    with pytest.raises(ValueError, match="must be positive"):
        flow_picture(np.zeros((5, 7, 2)), max_flow=max_flow)
