import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from train.checkpoint import fingerprint


def _of(x):
    return fingerprint.end(fingerprint.begin({"x": x}))["x"]


def _as_on_an_accelerator(x):
    shards = [shard for shard in x.addressable_shards if shard.replica_id == 0]
    parts = []
    for shard in shards:
        cut = zip(shard.index, x.shape, strict=True)
        starts = np.array([part.indices(size)[0] for part, size in cut], np.uint32)
        parts.append(
            {"x": np.asarray(fingerprint._on_device(shard.data, starts, x.shape)).tolist()}
        )
    return fingerprint.add(parts)["x"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "int32", "uint16"])
def test_devices_and_numpy_agree(rng, dtype):
    """Also across all ways to cut an array, and for several chunks of NumPy's."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
    for shape in ((8, 6, 4), (), (0, 3), (16,), (8, 2**17)):
        bits = rng.integers(0, 2 if dtype == "bool" else 100, size=shape)
        x = jnp.asarray(bits, dtype)
        wanted = fingerprint.of_numpy(np.asarray(x))
        assert _of(x) == wanted
        specs = [P()] if len(shape) < 2 or not shape[0] else [P(), P("a", "b"), P(("b", "a"))]
        for spec in specs:
            placed = jax.device_put(x, NamedSharding(mesh, spec))
            assert _of(placed) == wanted, (shape, spec)
            assert _as_on_an_accelerator(placed) == wanted, (shape, spec)


def test_by_definition():
    x = np.array([3, 5], np.uint32)

    def weight(place):
        place = (place ^ (place >> 16)) * 0x9E3779B1 % 2**32
        return (place ^ (place >> 15)) | 1

    assert fingerprint.of_numpy(x) == [8, (3 * weight(0) + 5 * weight(1)) % 2**32]


def test_doubles_are_two_words_each():
    x = np.array([[1.5, -2.0], [0.1, 3e300], [7.0, 0.0]])
    assert fingerprint.of_numpy(x) == fingerprint.of_numpy(x.view(np.uint32))


def test_each_flipped_bit_shows(rng):
    x = rng.normal(size=(7, 3)).astype(np.float32)
    wanted = fingerprint.of_numpy(x)
    for place in (0, 11, 20):
        for bit in range(32):
            changed = x.copy()
            changed.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
            found = fingerprint.of_numpy(changed)
            assert found[0] != wanted[0]
            assert found[1] != wanted[1]


def test_pieces_in_each_others_places_show(rng):
    x = rng.normal(size=(4, 1 << 16)).astype(np.float32)
    swapped = fingerprint.of_numpy(x[[1, 0, 2, 3]])
    assert swapped[0] == fingerprint.of_numpy(x)[0]
    assert swapped[1] != fingerprint.of_numpy(x)[1]


def test_a_cpus_array_may_be_donated_before_the_end():
    x = jnp.arange(1000.0)
    wanted = fingerprint.of_numpy(np.asarray(x).copy())
    begun = fingerprint.begin({"x": x})
    jax.jit(lambda x: x * 2, donate_argnums=0)(x).block_until_ready()
    assert fingerprint.end(begun) == {"x": wanted}
    assert begun == {}
