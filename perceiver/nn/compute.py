"""Choices of how a model is computed, not of its parameters: one value, handed to every module."""

import dataclasses

OPERANDS = ("float32", "bfloat16")
PATHS = ("auto", "plain", "streaming", "shared", "separable")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """Parameters do not depend on it, and values only by rounding, but for approximate kernels.

    Those of attention.APPROXIMATE estimate the attention, and so change the values of a model,
    from draw to draw too; it must be trained, or tuned, with such a kernel.
    """

    kernel: str = "auto"  # of self-attends and the plain path: "auto" or one of attention.KERNELS
    operands: str = "float32"  # of matrix products, whose sums are float32 either way
    path: str = "auto"  # of cross-attends: one of PATHS, see perceiver.cross_attention
    chunk: int = 0  # elements (or queries) that a cross-attend handles at a time; 0: automatic
    features: int = 256  # random directions of an approximate kernel
    redraw: bool = True  # at each call in training; else, and in evaluation, always the same

    def __post_init__(self):
        for name, choices in (("operands", OPERANDS), ("path", PATHS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"compute: {name}={getattr(self, name)!r} is unknown; "
                    f"choose one of {', '.join(choices)}"
                )
        if self.chunk < 0:
            raise ValueError(f"compute: chunk={self.chunk} must not be negative; 0 is automatic")
        if self.features < 1:
            raise ValueError(f"compute: features={self.features} must be positive, such as 256")
