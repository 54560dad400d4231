import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import ByteArray, Dense, PerExample, Segment, SeparableFourier

B = 2


@pytest.fixture
def draw(rng):
    return lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)


def test_channels_are_content_then_positions_then_constant(draw):
    content, table, constant = draw(B, 3, 5), draw(3, 7), draw(11)
    segment = Segment(content, Dense(table), constant)
    byte_array = ByteArray.of(segment)
    assert (byte_array.batch, byte_array.size, byte_array.channels) == (B, 3, 23)
    dense = np.asarray(byte_array.dense())
    assert dense.shape == (B, 3, 23)
    for b in range(B):
        for m in range(3):
            row = np.concatenate([content[b, m], table[m], constant])
            np.testing.assert_array_equal(dense[b, m], row)


def test_positions_of_each_example(draw):
    content, features = draw(B, 3, 5), draw(B, 3, 7)
    dense = ByteArray.of(Segment(content, PerExample(features))).dense()
    np.testing.assert_array_equal(dense, np.concatenate([content, features], axis=-1))


def test_content_alone_is_the_byte_array(draw):
    content = draw(B, 3, 5)
    np.testing.assert_array_equal(ByteArray.of(Segment(content)).dense(), content)


@pytest.mark.parametrize("dims", [(7,), (3, 5), (2, 3, 5)])
def test_grids_are_flattened_row_major_with_their_positions(draw, dims):
    content = draw(B, *dims, 3)
    positions = SeparableFourier.of_grid(dims, bands=2)
    dense = ByteArray.of(Segment(content, positions)).dense()
    for element, index in enumerate(np.ndindex(*dims)):
        np.testing.assert_array_equal(dense[:, element, :3], content[(slice(None), *index)])
        raw = [np.linspace(-1, 1, n)[i] for n, i in zip(dims, index, strict=True)]
        np.testing.assert_allclose(dense[0, element, 3 : 3 + len(dims)], raw, atol=1e-6)


def test_segments_follow_each_other(draw):
    image, sound = draw(B, 2, 3, 5), draw(B, 7, 4)
    positions, pad = Dense(draw(6, 2)), draw(3)
    byte_array = ByteArray.of(
        Segment(image, positions, name="image"), Segment(sound, constant=pad, name="sound")
    )
    assert byte_array.size == 13
    dense = byte_array.dense()
    np.testing.assert_array_equal(dense[:, :6], byte_array.segments[0].dense())
    np.testing.assert_array_equal(dense[:, 6:, :4], sound)
    np.testing.assert_array_equal(dense[:, 6:, 4:], np.broadcast_to(pad, (B, 7, 3)))


def test_a_missing_mask_means_all_real(draw):
    mask = jnp.asarray([[True, False, True], [False, True, True]])
    plain, masked = Segment(draw(B, 5, 3)), Segment(draw(B, 3, 3), mask=mask)
    assert ByteArray.of(plain, plain).mask is None
    both = ByteArray.of(plain, masked).mask
    np.testing.assert_array_equal(both, np.concatenate([np.ones((B, 5), bool), mask], axis=1))
    swapped = ByteArray.of(masked, plain).mask
    np.testing.assert_array_equal(swapped, np.concatenate([mask, np.ones((B, 5), bool)], axis=1))


def test_positions_take_the_dtype_of_the_content(draw):
    content = draw(B, 3, 5).astype(jnp.bfloat16)
    assert ByteArray.of(Segment(content, Dense(draw(3, 7)), draw(2))).dense().dtype == jnp.bfloat16


def full(draw):
    return ByteArray.of(
        Segment(
            draw(B, 3, 5, 2),
            SeparableFourier.of_grid((3, 5), bands=1),
            draw(3),
            jnp.ones((B, 15), bool).at[1, 4].set(False),
            name="image",
        ),
        Segment(draw(B, 7, 4), PerExample(draw(B, 7, 7)), name="points"),
    )


def test_it_is_a_pytree_that_keeps_names(draw):
    byte_array = full(draw)
    leaves, structure = jax.tree.flatten(byte_array)
    rebuilt = jax.tree.unflatten(structure, leaves)
    assert [s.name for s in rebuilt.segments] == ["image", "points"]
    np.testing.assert_array_equal(rebuilt.dense(), byte_array.dense())


def test_it_passes_through_jit_and_grad(draw):
    byte_array = full(draw)
    dense, mask = jax.jit(lambda x: (x.dense(), x.mask))(byte_array)
    np.testing.assert_array_equal(dense, byte_array.dense())
    np.testing.assert_array_equal(mask, byte_array.mask)
    constant = byte_array.segments[0].constant

    def total(constant):
        return ByteArray.of(Segment(jnp.ones((B, 5, 2)), constant=constant)).dense().sum()

    # every one of the B x 5 elements has the constant: it is learned from all of them
    np.testing.assert_array_equal(jax.grad(total)(constant), np.full(3, 10.0))


def test_it_passes_through_vmap(draw):
    content, mask = draw(3, B, 5, 2), jnp.ones((3, B, 5), bool)
    table = draw(5, 7)

    def dense(content, mask):
        byte_array = ByteArray.of(Segment(content, Dense(table), mask=mask))
        return byte_array.dense(), byte_array.mask

    mapped, _ = jax.vmap(dense)(content, mask)
    looped = np.stack([dense(c, m)[0] for c, m in zip(content, mask, strict=True)])
    np.testing.assert_array_equal(mapped, looped)


def test_it_is_a_carry_of_scan(draw):
    byte_array = full(draw)
    last, _ = jax.lax.scan(lambda x, _: (x, None), byte_array, None, length=2)
    np.testing.assert_array_equal(last.dense(), byte_array.dense())


def zeros(*shape, dtype=jnp.float32):
    return jnp.zeros(shape, dtype)


GRID = SeparableFourier.of_grid((3, 5), bands=1)

ERRORS = {
    "at least one segment": lambda: (),
    r"must be \[B, M, F\] or a grid": lambda: [Segment(zeros(2, 3))],
    "content must be floating-point, not int32": lambda: [Segment(zeros(2, 3, 5, dtype=jnp.int32))],
    "content must be floating-point, not uint8": lambda: [Segment(zeros(2, 3, 5, dtype=jnp.uint8))],
    "15 elements, but positions for 14": lambda: [Segment(zeros(2, 15, 1), Dense(zeros(14, 2)))],
    r"is a grid \(5, 3\), but its positions are for a grid \(3, 5\)": lambda: [
        Segment(zeros(2, 5, 3, 1), GRID)
    ],
    r"is a grid \(15,\), but its positions are for a grid": lambda: [
        Segment(zeros(2, 15, 1), GRID)
    ],
    r"Dense positions need 2 axes, not \(3, 3, 2\)": lambda: [
        Segment(zeros(2, 3, 5), Dense(zeros(3, 3, 2)))
    ],
    r"PerExample positions need 3 axes, not \(2, 3\)": lambda: [
        Segment(zeros(2, 3, 5), PerExample(zeros(2, 3)))
    ],
    r"positions \(7, 3, 5\) have another batch size": lambda: [
        Segment(zeros(2, 3, 5), PerExample(zeros(7, 3, 5)))
    ],
    r"constant features must be \[P\], not \(1, 3\)": lambda: [
        Segment(zeros(2, 3, 5), constant=zeros(1, 3))
    ],
    r"mask must be \(2, 3\), not \(3, 2\)": lambda: [
        Segment(zeros(2, 3, 5), mask=zeros(3, 2, dtype=bool))
    ],
    r"mask must be \(2, 15\), not \(2, 3, 5\)": lambda: [
        Segment(zeros(2, 3, 5, 1), mask=zeros(2, 3, 5, dtype=bool))
    ],
    r"mask must be bool \(True = real\), not float32": lambda: [
        Segment(zeros(2, 3, 5), mask=zeros(2, 3))
    ],
    r"differ in batch: \[\('left', 2\), \('right', 3\)\]": lambda: [
        Segment(zeros(2, 3, 5), name="left"),
        Segment(zeros(3, 3, 5), name="right"),
    ],
    r"differ in channels: \[\('left', 5\), \('right', 7\)\]; pad the narrow": lambda: [
        Segment(zeros(2, 3, 5), name="left"),
        Segment(zeros(2, 3, 5), constant=zeros(2), name="right"),
    ],
    # two segments of one (the default) name must not hide each other
    r"differ in channels: \[\('inputs', 5\), \('inputs', 7\)\]": lambda: [
        Segment(zeros(2, 3, 5)),
        Segment(zeros(2, 3, 7)),
    ],
}


@pytest.mark.parametrize("message", ERRORS)
def test_what_does_not_fit_is_refused(message):
    segments = ERRORS[message]()
    with pytest.raises(ValueError, match=message):
        ByteArray.of(*segments)


def test_errors_name_the_segment():
    with pytest.raises(ValueError, match=r"segment 'sound' with content \(2, 3\)"):
        ByteArray.of(Segment(zeros(2, 3), name="sound"))
