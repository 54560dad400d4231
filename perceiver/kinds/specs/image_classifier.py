"""What an image classifier is."""

import dataclasses
import math

from perceiver.inputs.image import POSITIONS, STEMS
from perceiver.inputs.permutation import MAX_SEED
from perceiver.kinds.specs.backbone import Backbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageClassifier(Backbone):
    """Images [B, H, W, C] -> logits [B, K]."""

    kind = "image_classifier"

    image_shape: tuple[int, int, int]  # H, W, C
    classes: int  # K
    stem: str = "pixels"  # pixels, conv1x1 (learned projection), conv (then batch norm, max-pool)
    stem_channels: int = 64
    stem_window: int = 7  # conv: side of the convolution's window
    stem_stride: int = 2  # conv: of the convolution; the pooling halves once more
    positions: str = "fourier"  # fourier, learned
    bands: int = 64  # Fourier: frequencies per axis
    max_resolution: tuple[int, ...] = ()  # Fourier: (): the grid's own size
    position_channels: int = 256  # learned
    head: str = "query"  # query (Perceiver IO), mean (Perceiver)
    query_channels: int = 1024  # E
    query_heads: int = 1
    query_residual: bool = True
    # Seed of one fixed permutation of all elements with their positions (Perceiver, table 2); 0:
    # none. It changes no output, as attention is blind to order: see `model.explain()`.
    permutation: int = 0

    def __post_init__(self):
        super().__post_init__()
        shape = self.image_shape
        self._require(
            len(shape) == 3 and min(shape) > 0, "image_shape", "must be (height, width, channels)"
        )
        self._require(self.classes > 1, "classes", "must be at least 2")
        sizes = (
            "stem_channels",
            "stem_window",
            "stem_stride",
            "position_channels",
            "query_channels",
            "query_heads",
        )
        for name in (*sizes, "bands"):
            self._require(getattr(self, name) > 0, name, "must be positive")
        self._require(
            self.latent_channels % self.query_heads == 0,
            "query_heads",
            f"must divide latent_channels={self.latent_channels}",
        )
        self._choice("stem", STEMS)
        self._choice("positions", POSITIONS)
        self._choice("head", ("query", "mean"))
        self._require(
            len(self.max_resolution) in (0, 2), "max_resolution", "must be (height, width) or ()"
        )
        self._require(self.permutation <= MAX_SEED, "permutation", f"must be at most {MAX_SEED}")

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the byte array: "SAME" padding, so that sides are rounded up."""
        height, width, _ = self.image_shape
        if self.stem != "conv":
            return height, width
        return tuple(math.ceil(math.ceil(n / self.stem_stride) / 2) for n in (height, width))
