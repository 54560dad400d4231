"""What an autoencoder of video with sound and a label is."""

import dataclasses

from perceiver.kinds.specs.backbone import Backbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoAutoencoder(Backbone):
    """Video [B, T, H, W, C], audio [B, S], label [B, K] -> the same (Perceiver IO, section 4.3).

    The modalities' channels are padded to a common width, that of the widest and a few more.
    """

    kind = "video_autoencoder"

    video_shape: tuple[int, int, int, int]  # T, H, W, C
    samples: int  # S, of the audio
    classes: int  # K, of the label
    patch_size: int = 4  # side of the square of pixels that is one element
    samples_per_patch: int = 16
    video_bands: int = 32  # Fourier: frequencies per axis
    video_max_resolution: tuple[int, ...] = ()  # (): the grid of patches
    audio_bands: int = 192
    audio_max_resolution: tuple[int, ...] = ()  # (): (samples,)
    input_padding: int = 4  # channels that the widest modality is padded by
    query_padding: int = 2  # the same of the decoder's queries
    label_query_channels: int = 1024
    decoder_channels: int = 512  # of what all modalities' outputs are projected from
    query_heads: int = 1
    query_residual: bool = False
    label_mask_rate: float = 0.5  # labels that training replaces by the mask token

    def __post_init__(self):
        super().__post_init__()
        self._shape("video_shape", "frames, height, width, channels")
        self._positive("samples", "classes", "patch_size", "samples_per_patch")
        self._positive("video_bands", "audio_bands", "input_padding", "query_padding")
        self._positive("label_query_channels", "decoder_channels", "query_heads")
        side, rule = (
            self.patch_size,
            f"needs sides that are multiples of patch_size={self.patch_size}",
        )
        _, height, width, _ = self.video_shape
        self._require(height % side == 0 and width % side == 0, "video_shape", rule)
        self._require(
            self.samples % self.samples_per_patch == 0,
            "samples",
            f"must be a multiple of samples_per_patch={self.samples_per_patch}",
        )
        if self.video_max_resolution:
            self._shape("video_max_resolution", "frames, height, width")
        if self.audio_max_resolution:
            self._shape("audio_max_resolution", "samples")
        self._require(
            self.latent_channels % self.query_heads == 0,
            "query_heads",
            f"must divide latent_channels={self.latent_channels}",
        )
        self._require(0 <= self.label_mask_rate <= 1, "label_mask_rate", "must lie in [0, 1]")

    @property
    def video_grid(self) -> tuple[int, int, int]:
        """Time, height and width in patches."""
        time, height, width, _ = self.video_shape
        return time, height // self.patch_size, width // self.patch_size

    @property
    def audio_patches(self) -> int:
        return self.samples // self.samples_per_patch

    @property
    def video_resolution(self) -> tuple[int, ...]:
        """The maximal resolution of each axis, of inputs and of queries."""
        return self.video_max_resolution or self.video_grid

    @property
    def audio_resolution(self) -> tuple[int, ...]:
        return self.audio_max_resolution or (self.samples,)

    @property
    def channels(self) -> int:
        """C of the byte array: of its widest modality, padded."""
        video = self.patch_size**2 * self.video_shape[-1] + 3 * (2 * self.video_bands + 1)
        audio = self.samples_per_patch + 2 * self.audio_bands + 1
        return max(video, audio, self.classes) + self.input_padding

    @property
    def query_channels(self) -> int:
        """E of all modalities' queries, padded."""
        video, audio = 3 * (2 * self.video_bands + 1), 2 * self.audio_bands + 1
        return max(video, audio, self.label_query_channels) + self.query_padding
