"""Which path a cross-attend takes: decided from shapes while tracing, and told.

  plain      the byte array is concatenated, keys and values are formed, a kernel attends.
             For few weights, unless to form keys and values is much work, for dropout, and for
             approximate kernels, whose cost is linear in the inputs.
  separable  a grid with Fourier positions: rows and columns are scored apart (`separable`)
  shared     absorbed projections; positions that the batch shares are never repeated (`shared`)
  streaming  keys and values are formed chunk by chunk: for many narrow heads (`streaming`)

All but `plain` take the segments one by one and merge by log-sum-exp. Which is cheapest is decided
by counting operations for each query and input. The counts are rough, and need not be better: where
two paths are close, either will do.
"""

import dataclasses
from collections.abc import Iterator

from perceiver.attention import APPROXIMATE
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import PATHS
from perceiver.nn.positions import Permuted, SeparableFourier

FEW_WEIGHTS = 2**16  # N x M of a head: below, the plain form is as fast, and shorter
FEW_OPERATIONS = 2**25  # for all inputs of an example: below, no path is worth its overhead
_SOFTMAX = 24  # operations for one weight's exponential, maximum and sums, roughly


@dataclasses.dataclass(frozen=True)
class PathChoice:
    """The path of one segment (of all together, if plain)."""

    segment: str
    elements: int
    path: str
    reason: str
    sharing: str = ""  # what each device of a sequence axis attends to, where there is one

    def __str__(self) -> str:
        words = f"{self.segment} ({self.elements:,} elements): {self.path}, {self.reason}"
        return f"{words}; {self.sharing}" if self.sharing else words


@dataclasses.dataclass(frozen=True)
class Plan:
    """The choices of one cross-attend."""

    choices: tuple[PathChoice, ...]

    @property
    def is_plain(self) -> bool:
        return self.choices[0].path == "plain"

    def __str__(self) -> str:
        return "; ".join(map(str, self.choices))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """The static sizes of a cross-attend."""

    queries: int  # N
    heads: int  # H
    qk_channels: int  # of all heads together
    v_channels: int


def choose(
    byte_array: ByteArray, sizes: Sizes, *, drops: bool, path: str = "auto", kernel: str = "auto"
) -> Plan:
    """Returns the plan of a cross-attend.

    Args:
      byte_array: the inputs; only its structure and shapes matter.
      sizes: of queries and heads.
      drops: whether attention weights are dropped out.
      path: "auto", or the path to force.
      kernel: of the attention; an approximate one serves the plain path only.

    Raises:
      ValueError: a forced path that cannot serve, or many elements that do not divide over the
        devices that shall share them; it names the segment and the reason.
    """
    if path not in PATHS:
        raise ValueError(f"unknown path {path!r}; choose one of {', '.join(PATHS)}")
    plan = _choose(byte_array, sizes, drops, path, kernel)
    if byte_array.sequence is None:
        return plan
    return Plan(tuple(_shared_out(plan, byte_array)))


def _choose(byte_array: ByteArray, sizes: Sizes, drops: bool, path: str, kernel: str) -> Plan:
    if (reason := for_kernel(kernel, path)) is not None:
        return _plain(byte_array, reason)
    if path != "auto":
        return _forced(byte_array, drops, path)
    if drops:
        return _plain(byte_array, "because dropout needs the attention weights")
    if sizes.queries * byte_array.size <= FEW_WEIGHTS and _plain_will_do(byte_array, sizes):
        return _plain(byte_array, f"at most {FEW_WEIGHTS:,} weights for a head")
    return Plan(tuple(_cheapest(segment, sizes) for segment in byte_array.segments))


def for_kernel(kernel: str, path: str) -> str | None:
    """Returns why a kernel alone decides for the plain path, or None where it leaves the choice.

    Raises:
      ValueError: another path is forced.
    """
    if kernel not in APPROXIMATE:
        return None
    if path not in ("auto", "plain"):
        raise ValueError(
            f"path {path!r} computes the exact softmax, but kernel {kernel!r} approximates it; use "
            "path='auto' or 'plain', or kernel='auto'"
        )
    return f"the approximate kernel {kernel} reads keys and values"


def _shared_out(plan: Plan, byte_array: ByteArray) -> Iterator[PathChoice]:
    """Says of each choice whether the devices of the sequence axis share the elements."""
    sequence = byte_array.sequence
    whole = f"not split: all {sequence.devices} devices of {sequence.axis!r} read every element"
    for choice, segment in zip(plan.choices, byte_array.segments, strict=False):
        split = not plan.is_plain and sequence.splits(segment)
        part = f"split over the {sequence.devices} devices of {sequence.axis!r}"
        yield dataclasses.replace(choice, sharing=part if split else whole)


def _plain(byte_array: ByteArray, reason: str) -> Plan:
    names = " + ".join(segment.name for segment in byte_array.segments)
    return Plan((PathChoice(names, byte_array.size, "plain", reason),))


def _forced(byte_array: ByteArray, drops: bool, path: str) -> Plan:
    if path == "plain":
        return _plain(byte_array, "as requested")
    if drops:
        raise ValueError(
            f"path {path!r} never forms the attention weights, so it cannot drop any; use "
            "path='plain' or attention_dropout_rate=0"
        )
    if path == "separable":
        for segment in byte_array.segments:
            require_grid(segment)
    return Plan(
        tuple(PathChoice(s.name, s.size, path, "as requested") for s in byte_array.segments)
    )


def require_grid(segment: Segment) -> None:
    """Raises ValueError unless the segment's positions are those of a grid."""
    if not isinstance(segment.positions, SeparableFourier):
        kind = type(segment.positions).__name__ if segment.positions is not None else "no"
        raise ValueError(
            f"path 'separable' does not apply to segment {segment.name!r} with {kind} positions: "
            "it needs SeparableFourier; use path='auto' or 'shared'"
        )


def _cheapest(segment: Segment, sizes: Sizes) -> PathChoice:
    costs = _costs(segment, sizes)
    path = min(costs, key=costs.get)
    return PathChoice(segment.name, segment.size, path, _reason(segment, sizes, path, costs))


def _costs(segment: Segment, sizes: Sizes) -> dict[str, float]:
    """Operations for each input, of all queries and heads together."""
    weights = sizes.queries * sizes.heads
    width, softmax = sizes.qk_channels + sizes.v_channels, weights * _SOFTMAX
    shared = 4 * weights * segment.channels + softmax
    streaming = 2 * width * (sizes.queries + segment.channels) + softmax
    if not isinstance(segment.positions, SeparableFourier):
        return {"shared": shared, "streaming": streaming}
    # A grid of one axis has nothing to separate: its table is what the batch shares.
    grid = (
        4 * weights * segment.content.shape[-1] + 2 * softmax if len(segment.dims) > 1 else shared
    )
    return {"separable": grid, "streaming": streaming}


def _plain_will_do(byte_array: ByteArray, sizes: Sizes) -> bool:
    """Returns whether keys and values cost little, or less than twice what other paths do."""
    plain = least = 0.0
    for segment in byte_array.segments:
        costs = _costs(segment, sizes)
        plain += segment.size * costs["streaming"]  # the same operations, in pieces
        least += segment.size * min(costs.values())
    return plain <= max(FEW_OPERATIONS, 2 * least)


def _reason(segment: Segment, sizes: Sizes, path: str, costs: dict[str, float]) -> str:
    if path == "streaming":
        return f"{sizes.heads} heads are too narrow to absorb {segment.channels} channels"
    ratio = f"{costs['streaming'] / costs[path]:.1f}x fewer operations than streaming"
    if path == "separable":
        return f"Fourier positions of a {'x'.join(map(str, segment.dims))} grid, {ratio}"
    absorbed = f"{sizes.heads} head(s) that absorb {segment.channels} channels, {ratio}"
    if isinstance(segment.positions, Permuted):
        return f"a permuted grid is treated as no grid: {absorbed}"
    return absorbed
