"""What a residual convolutional network is."""

import dataclasses

from perceiver.inputs.permutation import MAX_SEED
from perceiver.kinds.specs.spec import Spec
from perceiver.nn.resnet import STEMS

POSITIONS = ("none", "fourier")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageResNet(Spec):
    """Images [B, H, W, C] -> logits [B, K], by convolutions (He et al. 2015).

    The defaults are ResNet-50. With Fourier positions it is the "ResNet-50 (FF)" of Perceiver,
    tables 1 and 2, whose first convolution reads pixels and position features.
    """

    kind = "image_resnet"

    image_shape: tuple[int, int, int]  # H, W, C
    classes: int  # K
    blocks_per_stage: tuple[int, ...] = (3, 4, 6, 3)
    stage_channels: tuple[int, ...] = (64, 128, 256, 512)  # a bottleneck gives out 4 times as many
    bottleneck: bool = True  # blocks of 1x1, 3x3, 1x1 convolutions; False: of two 3x3
    stem: str = STEMS[0]  # imagenet (7x7 of stride 2, max-pool), small (3x3: images up to 64x64)
    positions: str = "none"  # none, fourier: features of each pixel, concatenated
    bands: int = 64  # Fourier: frequencies per axis
    max_resolution: tuple[int, ...] = ()  # Fourier: (): the image's own size
    permutation: int = 0  # seed of one fixed permutation of all pixels with their positions

    def __post_init__(self):
        super().__post_init__()
        self._shape("image_shape", "height, width, channels")
        self._require(self.classes > 1, "classes", "must be at least 2")
        self._positive("bands")
        self._choice("stem", STEMS)
        self._choice("positions", POSITIONS)
        stages = len(self.stage_channels)
        self._require(stages > 0, "stage_channels", "must have one entry per stage")
        self._shape("stage_channels", ", ".join(["width"] * stages))
        self._shape("blocks_per_stage", ", ".join(["blocks"] * stages))
        if self.max_resolution:
            self._shape("max_resolution", "height, width")
        self._require(self.permutation <= MAX_SEED, "permutation", f"must be at most {MAX_SEED}")

    @property
    def network(self) -> str:
        """What it is made of, in a line."""
        kind = "bottleneck" if self.bottleneck else "plain"
        blocks, widths = (
            " + ".join(map(str, x)) for x in (self.blocks_per_stage, self.stage_channels)
        )
        return f"{self.stem} stem, {blocks} {kind} blocks of {widths} channels"
