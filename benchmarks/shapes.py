"""Cross-attends to measure: sizes, and arrays of those sizes.

Sizes of the papers' models: Perceiver IO (2107.14795), tables 7, 11 and appendices A, F, H and the
released configurations.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from perceiver.byte_array import ByteArray, Segment
from perceiver.positions import Dense, SeparableFourier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A segment of a byte array: a grid with Fourier positions, a table, or neither."""

    name: str = "inputs"
    dims: tuple[int, ...]
    content: int  # F
    bands: int = 0  # Fourier frequencies per axis; 0: none
    max_resolution: tuple[int, ...] | None = None  # Fourier; None: dims
    table: int = 0  # channels of arbitrary positions that the batch shares; 0: none
    constant: int = 0  # features that all elements share

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def axes(self) -> tuple[tuple[int, int], ...]:
        """(points, channels) of each table of Fourier positions."""
        return tuple((n, 1 + 2 * self.bands) for n in self.dims) if self.bands else ()

    @property
    def channels(self) -> int:
        return self.content + sum(c for _, c in self.axes) + self.table + self.constant

    def segment(self, draw: np.random.Generator, batch: int) -> Segment:
        """Returns arrays of these sizes."""

        def normal(*shape):
            return jnp.asarray(draw.standard_normal(shape, np.float32))

        positions = None
        if self.bands:
            positions = SeparableFourier.of_grid(
                self.dims, bands=self.bands, max_resolution=self.max_resolution
            )
        elif self.table:
            positions = Dense(normal(self.size, self.table))
        return Segment(
            normal(batch, *self.dims, self.content),
            positions,
            constant=normal(self.constant) if self.constant else None,
            name=self.name,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A cross-attend of N queries to a byte array, one head, as wide inside as the byte array."""

    parts: tuple[Part, ...]
    queries: int  # N
    width: int  # D, of the queries

    @property
    def size(self) -> int:
        """M."""
        return sum(part.size for part in self.parts)

    @property
    def channels(self) -> int:
        """C."""
        return self.parts[0].channels

    @property
    def is_grid(self) -> bool:
        """Whether some part has Fourier positions of two axes or more."""
        return any(len(part.axes) > 1 for part in self.parts)

    def tiny(self) -> "Shape":
        """Returns the same structure with just enough queries and inputs for the same path."""
        small = ((1031,), (31, 37), (9, 11, 13))
        parts = tuple(
            dataclasses.replace(part, dims=small[len(part.dims) - 1] if part.size > 1 else (1,))
            for part in self.parts
        )
        return dataclasses.replace(self, parts=parts, queries=67)

    def byte_array(self, batch: int) -> ByteArray:
        """Draws inputs."""
        draw = np.random.default_rng(0)
        return ByteArray.of(*(part.segment(draw, batch) for part in self.parts))

    def latents(self, batch: int) -> jax.Array:  # [B, N, D]
        """Draws queries."""
        draw = np.random.default_rng(1)
        return jnp.asarray(draw.standard_normal((batch, self.queries, self.width), np.float32))


def pixels(side: int) -> Shape:
    """ImageNet's latents and channels (C = 261) on a square image of any side."""
    grid = Part(name="image", dims=(side, side), content=3, bands=64)
    return Shape(parts=(grid,), queries=512, width=1024)


IMAGENET = pixels(224)  # M = 50,176

# The same sizes with positions that have no structure: learned, or given by the user.
ARBITRARY = Shape(parts=(Part(dims=(50_176,), content=3, table=258),), queries=512, width=1024)

FLOW = Shape(  # M = 182,528, C = 322
    parts=(Part(name="frames", dims=(368, 496), content=64, bands=64),), queries=2048, width=512
)

# 0.64 seconds of 224 x 224 video with 48 kHz sound and a label: M = 52,097, C = 704.
VIDEO = Shape(
    parts=(
        Part(name="audio", dims=(1920,), content=16, bands=192, constant=303),
        Part(name="image", dims=(16, 56, 56), content=48, bands=32, constant=461),
        Part(name="label", dims=(1,), content=700, constant=4),
    ),
    queries=784,
    width=512,
)
