import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.model.decoder import Decoder
from perceiver.model.host_outputs import decode_to_host, pieces
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.positions import Dense, PerExample, SeparableFourier

B, N, D, E = 2, 11, 12, 17
SEGMENTS = {
    "image": ((7, 5, 3), lambda rng: SeparableFourier.of_grid((7, 5), bands=3)),
    "table": ((13, 7), lambda rng: Dense(rng.normal(size=(13, 10)).astype(np.float32))),
    "points": ((5, 7), lambda rng: PerExample(rng.normal(size=(B, 5, 10)).astype(np.float32))),
    "plain": ((3, 17), lambda rng: None),
}


@pytest.fixture
def byte_array(rng):
    """Segments of all kinds, their content in numpy, one of them masked."""
    segments = []
    for name, (shape, positions) in SEGMENTS.items():
        content = rng.normal(size=(B, *shape)).astype(np.float32)
        mask = rng.random((B, int(np.prod(shape[:-1])))) < 0.7 if name != "table" else None
        segments.append(Segment(content, positions(rng), mask=mask, name=name))
    return ByteArray.of(*segments)


@pytest.fixture
def decoder():
    return hk.without_apply_rng(
        hk.transform(
            lambda queries, latents: Decoder(
                heads=1, out_channels=3, compute=Compute(path="shared", chunk=4), name="decoder"
            )(queries, latents)
        )
    )


@pytest.mark.parametrize("at_once", [1, 6, 1000])
def test_pieces_are_the_whole_byte_array(byte_array, at_once):
    dense, mask = byte_array.dense(), byte_array.mask
    seen = np.zeros(byte_array.size, bool)
    for start, piece in pieces(byte_array, at_once):
        stop = start + piece.size
        np.testing.assert_array_equal(piece.dense(), dense[:, start:stop])
        expected = mask[:, start:stop]
        np.testing.assert_array_equal(
            np.ones_like(expected) if piece.mask is None else piece.mask, expected
        )
        line = 5 if piece.segments[0].name == "image" else 1
        assert piece.size <= max(at_once, line)
        seen[start:stop] = True
    assert seen.all()


def test_the_host_collects_what_the_decoder_gives(byte_array, decoder, rng, draw_params):
    latents = jnp.asarray(rng.normal(size=(B, N, D)), jnp.float32)
    params = draw_params(decoder.init, byte_array, latents)
    expected = jax.jit(decoder.apply)(params, byte_array, latents)
    traced = []

    @jax.jit
    def decode(params, queries, latents):
        traced.append(queries.size)
        return decoder.apply(params, queries, latents)

    out = np.full(expected.shape, np.nan, np.float32)
    result = decode_to_host(
        lambda queries: decode(params, queries, latents), byte_array, at_once=10, out=out
    )
    assert result is out
    np.testing.assert_allclose(out, expected, atol=1e-5 * np.abs(expected).max())
    assert traced == [10, 10, 5, 3]  # one shape for each segment: pieces of 7, 13, 5, 3 lines


def test_queries_of_one_array_go_to_a_file(tmp_path, rng):
    queries = rng.normal(size=(B, 37, E)).astype(np.float32)
    shape = (B, 37, 2, E)
    out = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.float32, shape)
    decode_to_host(lambda x: jnp.stack([x, -x], axis=2), queries, at_once=5, out=out)
    out.flush()
    expected = np.stack([queries, -queries], axis=2)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


def test_an_array_is_made_of_the_outputs_shape_and_dtype(rng):
    queries = jnp.asarray(rng.normal(size=(B, 7, E)), jnp.bfloat16)
    result = decode_to_host(lambda x: x[..., :3], queries)
    assert isinstance(result, np.ndarray)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result, queries[..., :3])


def test_what_does_not_fit_is_refused(rng):
    queries = rng.normal(size=(B, 7, E)).astype(np.float32)
    with pytest.raises(ValueError, match="at_once=0"):
        decode_to_host(lambda x: x, queries, at_once=0)
    with pytest.raises(ValueError, match=r"\(2, 7, 5\), but the outputs are \(2, 7, 17\)"):
        decode_to_host(lambda x: x, queries, out=np.zeros((B, 7, 5), np.float32))
