"""What Python users have at hand, as one thing or several."""

import io
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from perceiver.pretrained.use import items


class Tensor:
    """Has its array as those of PyTorch have."""

    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.x, dtype)


TEXTS = ["one", "two", "three"]


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        np.array(TEXTS),
        np.array(TEXTS, object),
        np.array(TEXTS, np.dtypes.StringDType()),
        Tensor(np.array(TEXTS, object)),  # such as a pandas Series
        (text for text in TEXTS),
        dict.fromkeys(TEXTS).keys(),
    ],
)
def test_texts_are_several(given):
    found = items.plain(given)
    assert found == TEXTS
    assert items.several(found)
    items.texts(found)


@pytest.mark.parametrize("given", ["one", b"one", np.str_("one"), np.array("one"), ("one", "two")])
def test_a_text_is_one_and_a_tuple_a_pair(given):
    found = items.plain(given)
    assert found == (given.item() if isinstance(given, np.ndarray) else given)
    items.texts(found)


@pytest.mark.parametrize("kind", [jnp.asarray, Tensor, np.asarray])
def test_arrays_of_other_libraries_are_arrays(rng, kind):
    pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
    found = items.plain(kind(pixels))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, pixels)
    assert not items.several(found)
    assert items.several(items.plain([kind(pixels)]))


def test_files_are_read_or_named(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (3, 3)).save(path)
    content = path.read_bytes()
    with path.open("rb") as file:
        for given in (file, io.BytesIO(content), bytearray(content), memoryview(content)):
            assert items.plain(given) == content
    assert items.plain([path, str(path)]) == [path, str(path)]
    with Image.open(path) as picture:
        assert items.plain(picture) is picture


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "nothing in the list"),
        ((x for x in ()), "nothing in the list"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"\(0, 4, 4, 3\) has nothing in it"),
        (3, "cannot read int 3: give texts"),
        (None, "cannot read NoneType"),
        ({"text": "one"}, "cannot read dict"),
    ],
)
def test_what_is_nothing_of_this_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        items.plain(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["one", float("nan")], "cannot read float nan"),  # pandas: missing
        (["one", None], "cannot read NoneType"),
        ([("one", 2.0)], "cannot read float"),
        (np.array([[5, 6]], np.int32), r"text 0 must be .* got ndarray int32 \(1, 2\)"),
        (pathlib.Path("a.txt"), "got PosixPath"),
    ],
)
def test_what_is_no_text_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        items.texts(items.plain(given))
