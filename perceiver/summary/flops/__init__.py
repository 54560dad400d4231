"""Forward FLOPs of a model, counted on paper from its spec: nothing is built, traced or run.

A multiply and an add are two FLOPs, as in the papers (Perceiver, appendix B; Perceiver IO, appendix
D). What is counted are the matrix products and convolutions of the dense form, that is of the
`reference` attention kernel on the whole byte array and all queries; a path that exploits structure
does less. An approximate kernel is another model, and its own products are counted: projections on
random directions, sums over keys, products with queries and what normalises them. Of two
projections that are multiplied before they are used, the product is counted. A "SAME" convolution
counts its padding.

Left out is what costs a few FLOPs per element rather than per element and channel: norms, softmax,
GELU, biases, residual sums, pooling, Fourier features and transforms: about half a percent at the
papers' sizes. Of approximate kernels, it is also the drawing of directions.
"""

from collections.abc import Mapping
from typing import Any

from perceiver.kinds import specs
from perceiver.summary.flops import baselines, perceivers
from perceiver.summary.flops.rows import Row

__all__ = ["Row", "byte_array", "forward", "per_example", "total"]


def forward(spec: Mapping[str, Any] | specs.Spec) -> tuple[Row, ...]:
    """Returns the operations of a forward pass, part by part.

    Raises:
      ValueError: the spec is wrong.
    """
    spec = specs.parse(spec)
    return _counts(spec).forward(spec)


def total(rows: tuple[Row, ...], batch_size: int = 1) -> int:
    """Returns the FLOPs of a whole batch."""
    return sum(row.flops * (1 if row.shared else batch_size) for row in rows)


def per_example(rows: tuple[Row, ...]) -> int:
    """Returns the FLOPs that each further example costs: what the papers' tables list."""
    return sum(row.flops for row in rows if not row.shared)


def byte_array(spec: specs.Spec) -> tuple[int, int]:
    """Returns M and C, the elements and channels of the byte array."""
    return _counts(spec).byte_array(spec)


def _counts(spec: specs.Spec):
    return perceivers if isinstance(spec, specs.Backbone) else baselines
