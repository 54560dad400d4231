"""What a model of optical flow is."""

import dataclasses

from perceiver.kinds.specs.backbone import Backbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpticalFlow(Backbone):
    """Two frames [B, 2, H, W, C] in [-1, 1] -> flow [B, H, W, 2] (Perceiver IO, section 4.2).

    The decoder's queries are the inputs themselves. The released model gives flow in units of 20
    pixels.
    """

    kind = "optical_flow"

    frame_shape: tuple[int, int, int]  # H, W, C
    patch_size: int = 3  # side of the neighbourhood that makes the content of an element
    patch_channels: int = 64  # to which both frames' neighbourhoods are projected
    bands: int = 64  # Fourier: frequencies per axis
    max_resolution: tuple[int, ...] = ()  # (): H, W
    query_heads: int = 1
    query_qk_channels: int = 0  # 0: as wide as the latents
    query_v_channels: int = 0  # 0: as wide as the latents
    query_residual: bool = False
    output_scale: float = 0.01  # by which the last layer's result is multiplied

    def __post_init__(self):
        super().__post_init__()
        self._shape("frame_shape", "height, width, channels")
        self._positive("patch_size", "patch_channels", "bands", "query_heads", "output_scale")
        self._require(
            self.patch_size % 2 == 1, "patch_size", "must be odd, so that a pixel is its centre"
        )
        if self.max_resolution:
            self._shape("max_resolution", "height, width")
        self._divides("query_heads", "query_qk_channels", "query_v_channels")

    @property
    def resolution(self) -> tuple[int, ...]:
        """The maximal resolution of each axis."""
        return self.max_resolution or self.frame_shape[:2]
