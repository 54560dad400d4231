"""Where an element is: Fourier features of a grid, a shared table, or features of each example.

A byte array keeps positions apart from content, because they are (mostly) the same for every
example. The three kinds:

  SeparableFourier   features of a grid, kept as one small table per axis
  Dense              one table [M, P] for the whole batch (learned positions, any given table)
  Permuted           the same, of a grid's elements in another order
  PerExample         features [B, M, P] of each example (point clouds, tracked objects)

Each has `size` (M), `channels` (P) and `dense()`.
"""

import dataclasses
import math

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np


def frequencies(bands: int, max_resolution: int) -> jax.Array:  # [bands]
    """Returns `bands` frequencies, linear from 1 to max_resolution / 2 (Perceiver, section 3.2)."""
    return jnp.linspace(1.0, max_resolution / 2, num=bands, endpoint=True, dtype=jnp.float32)


def coordinates(size: int, *, inclusive: bool = True) -> jax.Array:  # [size]
    """Returns `size` equidistant coordinates from -1, up to and including 1 or one step before."""
    if not inclusive:
        return _before_one(jnp.arange(size), size)
    return jnp.linspace(-1.0, 1.0, num=size, endpoint=True, dtype=jnp.float32)


def coordinates_at(indices: jax.Array, dims: tuple[int, ...]) -> jax.Array:  # [o] -> [o, d]
    """Returns the coordinates of some points of a grid, by their numbers in row-major order.

    They are those of `coordinates(..., inclusive=False)`.
    """
    where = jnp.unravel_index(indices, dims)
    return jnp.stack([_before_one(i, n) for i, n in zip(where, dims, strict=True)], axis=-1)


def _before_one(i: jax.Array, size: int) -> jax.Array:
    # in this order, as the released weights saw it: see `_axis_features`
    return (2 * i).astype(jnp.float32) / size - 1.0


def _axis_features(position: jax.Array, bands: int, max_resolution: int):
    """[...] -> raw [..., 1], sines [..., bands], cosines [..., bands]."""
    # The released weights saw float32 values of (position * frequency) * pi in just this order; at
    # audio's frequencies another order moves the features by up to 1e-2.
    angle = position[..., None] * jnp.expand_dims(
        frequencies(bands, max_resolution), range(position.ndim)
    )
    angle = angle * jnp.float32(math.pi)
    return position[..., None], jnp.sin(angle), jnp.cos(angle)


def _interleave(parts) -> jax.Array:
    """Joins per-axis (raw, sin, cos) triples: all raw ones, then all sines, then all cosines."""
    return jnp.concatenate([part for kind in zip(*parts, strict=True) for part in kind], axis=-1)


def fourier_features(
    positions: jax.Array, *, bands: int, max_resolution: tuple[int, ...]
) -> jax.Array:
    """Returns the Fourier features of given positions (for points that lie on no grid).

    Args:
      positions: [..., d] coordinates, usually within [-1, 1].
      bands: the number of frequencies per axis.
      max_resolution: one number per axis; the highest frequency is half of it.

    Returns:
      [..., d (2 bands + 1)] features: raw positions, sines, cosines (Perceiver, section 3.2).
    """
    if positions.shape[-1] != len(max_resolution):
        raise ValueError(
            f"positions {positions.shape} have {positions.shape[-1]} coordinates, but "
            f"max_resolution {max_resolution} has {len(max_resolution)}: give one for each"
        )
    return _interleave(
        [
            _axis_features(positions[..., i], bands, resolution)
            for i, resolution in enumerate(max_resolution)
        ]
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SeparableFourier:
    """Fourier features of a grid: at (i, j) they are [Ty(i), Tx(j)] up to the order of channels."""

    tables: tuple[jax.Array, ...]  # one [n, 1 + 2 bands] per axis: raw position, sines, cosines

    @classmethod
    def of_grid(
        cls,
        dims: tuple[int, ...],
        *,
        bands: int,
        max_resolution: tuple[int, ...] | None = None,
        inclusive: bool = True,
    ):
        """Makes the tables of a 1-D, 2-D or 3-D grid.

        Args:
          dims: of the grid.
          bands: frequencies per axis.
          max_resolution: one number per axis; None: the dims.
          inclusive: whether the last coordinate of an axis is 1, or one step before.
        """
        resolutions = tuple(dims) if max_resolution is None else tuple(max_resolution)
        if len(resolutions) != len(dims):
            raise ValueError(
                f"max_resolution {resolutions} needs one number per axis of the grid {tuple(dims)}"
            )
        axes = zip(dims, resolutions, strict=True)
        features = (_axis_features(coordinates(n, inclusive=inclusive), bands, r) for n, r in axes)
        return cls(tuple(jnp.concatenate(parts, axis=-1) for parts in features))

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(table.shape[0] for table in self.tables)

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def channels(self) -> int:
        return sum(table.shape[1] for table in self.tables)

    def dense(self) -> jax.Array:  # [M, P]
        """Returns the features of all M grid points, row-major."""
        if len(self.tables) == 1:  # of one axis, the table has them in just this order
            return self.tables[0]
        parts = []
        for axis, table in enumerate(self.tables):
            bands = (table.shape[1] - 1) // 2
            others = [i for i in range(len(self.dims)) if i != axis]
            full = jnp.broadcast_to(jnp.expand_dims(table, others), (*self.dims, table.shape[1]))
            parts.append(jnp.split(full.reshape(self.size, -1), [1, 1 + bands], axis=-1))
        return _interleave(parts)

    def split(
        self, channels: jax.Array
    ) -> tuple[jax.Array, ...]:  # [..., P] -> [..., 1 + 2 bands]s
        """Sorts an array over the P channels of `dense()` by axis, as the tables are."""
        bands = [(table.shape[1] - 1) // 2 for table in self.tables]
        widths = [1] * len(bands) + bands + bands
        ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]
        parts = jnp.split(channels, ends, axis=-1)
        axes = range(len(bands))
        return tuple(jnp.concatenate(parts[axis :: len(bands)], axis=-1) for axis in axes)

    def join(self, axes: tuple[jax.Array, ...]) -> jax.Array:  # [..., 1 + 2 bands] each -> [..., P]
        """Undoes `split`."""
        splits = [[1, 1 + (table.shape[1] - 1) // 2] for table in self.tables]
        return _interleave(
            [jnp.split(part, ends, axis=-1) for part, ends in zip(axes, splits, strict=True)]
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dense:
    """A table of positions that the whole batch shares."""

    table: jax.Array  # [M, P]

    @property
    def size(self) -> int:
        return self.table.shape[0]

    @property
    def channels(self) -> int:
        return self.table.shape[1]

    def dense(self) -> jax.Array:  # [M, P]
        return self.table


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Permuted(Dense):
    """The positions of a grid whose elements were put in another order: a grid no more."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PerExample:
    """Position features that differ between examples."""

    features: jax.Array  # [B, M, P]

    @property
    def size(self) -> int:
        return self.features.shape[1]

    @property
    def channels(self) -> int:
        return self.features.shape[2]

    def dense(self) -> jax.Array:  # [B, M, P]
        return self.features


Positions = SeparableFourier | Dense | PerExample


STARTS = ("normal", "sinusoids")  # of a learned table


@dataclasses.dataclass(kw_only=True, eq=False)
class LearnedTable(hk.Module):
    """A trainable array [size, channels]: latents, learned positions, decoder queries.

    At the start its rows are random (Perceiver, appendix C), and nothing says which are neighbours.
    With `sinusoids` neighbours begin alike: row m has the sines and cosines of m at wavelengths
    from 2 pi to 2 pi size (Attention is all you need, section 3.5, whose longest is fixed).
    """

    size: int
    channels: int
    scale: float = 0.02  # standard deviation, of a normal distribution before it is cut at two
    start: str = "normal"  # one of STARTS
    name: str | None = None

    def __call__(self) -> jax.Array:  # [size, channels]
        init = hk.initializers.TruncatedNormal(self.scale)
        if self.start == "sinusoids":
            init = hk.initializers.Constant(_sinusoids(self.size, self.channels, self.scale))
        return hk.get_parameter("table", [self.size, self.channels], jnp.float32, init=init)


def _sinusoids(size: int, channels: int, scale: float) -> np.ndarray:  # f32 [size, channels]
    waves = -(-channels // 2)
    phases = np.arange(size)[:, None] * float(size) ** -(np.arange(waves) / waves)
    rows = np.stack([np.sin(phases), np.cos(phases)], axis=-1).reshape(size, 2 * waves)
    return (np.sqrt(2) * scale * rows[:, :channels]).astype(np.float32)
