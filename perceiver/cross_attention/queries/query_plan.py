"""Which path a decoder takes: decided from shapes while tracing, and told.

  plain      all at once, queries concatenated: for few queries, and for approximate kernels
  separable  queries on a grid: rows and columns are scored apart
  shared     one head: the keys absorb the queries' projection
  streaming  queries are projected, chunk by chunk: for many heads, or few latents

All but `plain` take some queries at a time (`queries`). Which is cheapest is decided by counting
operations for each query; a decoder may take several segments, each by its own path.
"""

from perceiver.cross_attention.plan import PathChoice, Plan, Sizes, for_kernel, require_grid
from perceiver.cross_attention.queries.query_layout import is_grid
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import PATHS

FEW_SCORES = 2**22  # of an example: below, all arrays of a decoder are small, and one step is best


def choose(
    queries: ByteArray, latents: int, sizes: Sizes, *, path: str = "auto", kernel: str = "auto"
) -> Plan:
    """Returns the plan of a decoder.

    Args:
      queries: only their structure and shapes matter.
      latents: N.
      sizes: of the queries, and of the heads.
      path: "auto", or the path to force.
      kernel: of the attention; an approximate one serves the plain path only.

    Raises:
      ValueError: a forced path that cannot serve; it names the segment and the reason.
    """
    if path not in PATHS:
        raise ValueError(f"unknown path {path!r}; choose one of {', '.join(PATHS)}")
    scores = queries.size * latents * sizes.heads
    reason = for_kernel(kernel, path)
    if reason or path == "plain" or (path == "auto" and scores <= FEW_SCORES):
        names = " + ".join(segment.name for segment in queries.segments)
        few = "as requested" if path == "plain" else f"at most {FEW_SCORES:,} weights"
        return Plan((PathChoice(names, queries.size, "plain", reason or few),))
    if path != "auto":
        return Plan(tuple(_forced(segment, sizes, path) for segment in queries.segments))
    return Plan(tuple(_cheapest(segment, latents, sizes) for segment in queries.segments))


def _forced(segment: Segment, sizes: Sizes, path: str) -> PathChoice:
    if path != "streaming" and sizes.heads > 1:
        raise ValueError(
            f"path {path!r} does not apply to queries {segment.name!r} with {sizes.heads} heads: "
            "it needs a single head; use path='auto' or 'streaming'"
        )
    if path == "separable":
        require_grid(segment)
    return PathChoice(segment.name, segment.size, path, "as requested")


def _cheapest(segment: Segment, latents: int, sizes: Sizes) -> PathChoice:
    if sizes.heads > 1:
        reason = f"{sizes.heads} heads are too narrow to absorb {segment.channels} channels"
        return PathChoice(segment.name, segment.size, "streaming", reason)
    costs = _costs(segment, latents, sizes)
    best = min(costs, key=costs.get)
    if best == "streaming":
        reason = f"cheaper than absorbing {segment.channels} channels of a query"
        return PathChoice(segment.name, segment.size, best, reason)
    ratio = f"scored by {costs['streaming'] / costs[best]:.1f}x fewer operations than streaming"
    reason = f"one head that absorbs {segment.channels} channels of a query"
    if best == "separable":
        reason = f"Fourier positions of a {'x'.join(map(str, segment.dims))} grid"
    return PathChoice(segment.name, segment.size, best, f"{reason}, {ratio}")


def _costs(segment: Segment, latents: int, sizes: Sizes) -> dict[str, float]:
    """Operations that score one query against all latents."""
    channels, width = segment.channels, sizes.qk_channels
    absorbing = 2 * latents * width * channels / segment.size  # once, for all queries
    costs = {
        "streaming": 2 * width * (channels + latents),
        "shared": 2 * latents * channels + absorbing,
    }
    if is_grid(segment):
        costs["separable"] = latents * (2 * segment.content.shape[-1] + 4) + absorbing
    return costs
