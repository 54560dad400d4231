"""What a Vision Transformer is."""

import dataclasses

from perceiver.inputs.permutation import MAX_SEED
from perceiver.kinds.specs.transformer import Transformer

POSITIONS = ("fourier", "learned")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTransformer(Transformer):
    """Images [B, H, W, C] -> logits [B, K], by a Transformer on patches (or on all pixels).

    Sources: Dosovitskiy et al. 2020; Perceiver, tables 1 and 2, where "FF" are Fourier features.
    The mean of all patches is classified, as in a Perceiver, or a class token, as in ViT.
    """

    kind = "image_transformer"

    image_shape: tuple[int, int, int]  # H, W, C
    classes: int  # K
    layers: int = 12
    channels: int = 768
    heads: int = 12
    patch_size: int = 16  # side of the square of pixels that is one element; 1: every pixel
    # fourier: features of each pixel, concatenated before the patch is projected, as in a
    # Perceiver's inputs; learned: a table of the patches, added after that, as in ViT.
    positions: str = "fourier"
    bands: int = 64  # Fourier: frequencies per axis
    max_resolution: tuple[int, ...] = ()  # Fourier: (): the image's own size
    # One more element, which is learned and comes first, is classified in place of the mean. A
    # learned table of positions has one for it too, the first.
    class_token: bool = False
    # Seed of one fixed permutation of all pixels with their Fourier features, before patches are
    # cut (Perceiver, table 2); learned positions stay with the places of patches. 0: none
    permutation: int = 0

    def __post_init__(self):
        super().__post_init__()
        self._shape("image_shape", "height, width, channels")
        self._require(self.classes > 1, "classes", "must be at least 2")
        self._positive("patch_size", "bands")
        self._choice("positions", POSITIONS)
        height, width, _ = self.image_shape
        rule = f"needs sides that are multiples of patch_size={self.patch_size}"
        fits = height % self.patch_size == 0 and width % self.patch_size == 0
        self._require(fits, "image_shape", rule)
        if self.max_resolution:
            self._shape("max_resolution", "height, width")
        self._require(self.permutation <= MAX_SEED, "permutation", f"must be at most {MAX_SEED}")

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in patches."""
        height, width, _ = self.image_shape
        return height // self.patch_size, width // self.patch_size
