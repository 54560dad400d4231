"""What a classifier of video, sound, or both is."""

import dataclasses

from perceiver.inputs import mel
from perceiver.kinds.specs.backbone import Backbone

AUDIO = ("none", "raw", "mel")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipClassifier(Backbone):
    """Video [B, T, H, W, C], sound [B, S], or both -> logits [B, K] (Perceiver, section 4.2).

    A model of one modality has no modality embedding: there is nothing to tell apart.
    """

    kind = "clip_classifier"

    classes: int  # K
    video_shape: tuple[int, ...] = (32, 224, 224, 3)  # T, H, W, C; (): no video
    video_patch: tuple[int, int, int] = (2, 8, 8)  # frames, rows, columns that are one element
    video_bands: int = 16  # Fourier: frequencies per axis
    video_max_resolution: tuple[int, ...] = ()  # (): the grid of patches
    audio: str = "none"  # none, raw (patches of samples), mel (each value of a log-mel spectrogram)
    samples: int = 61440  # S, of raw sound, also where the model makes a spectrogram of it
    sample_rate: int = 48000  # hertz
    samples_per_patch: int = 128  # raw
    # The widest modality is video, 384 values and 99 of positions: the published width of 487
    # leaves 4 for its embedding, and would leave as many to raw sound with up to 177 bands. Sixty
    # four are those of the ImageNet models; the paper tells neither.
    audio_bands: int = 64
    audio_max_resolution: tuple[int, ...] = ()  # (): as many as elements along each axis
    mel_bins: int = 80
    mel_window: int = 2048  # samples
    mel_hop: int = 1024  # samples; windows of 61,440 have 60 frames
    mel_positions: int = 1  # axes: 1 along all values, frame by frame; 2 for time and bin
    mel_time_mask: int = 0  # SpecAugment in training: frames of the largest mask
    mel_bin_mask: int = 0  # the same of bins
    modality_channels: int = 4  # embedding of the widest modality; others are filled up by theirs
    video_dropout: float = 0.0  # share of examples whose picture is black in training
    audio_dropout: float = 0.0  # the same of sound, before any spectrogram
    head: str = "query"  # query (Perceiver IO), mean (Perceiver)
    query_channels: int = 1024  # E
    query_heads: int = 1
    query_residual: bool = True

    def __post_init__(self):
        super().__post_init__()
        self._positive("classes", "query_channels", "query_heads", "modality_channels")
        self._choice("audio", AUDIO)
        self._choice("head", ("query", "mean"))
        self._require(
            bool(self.video_shape) or self.audio != "none",
            "audio",
            "with video_shape=() leaves no input; set one of them",
        )
        self._require(
            self.latent_channels % self.query_heads == 0,
            "query_heads",
            f"must divide latent_channels={self.latent_channels}",
        )
        self._rate("video_dropout", "audio_dropout")
        if self.video_shape:
            self._check_video()
        if self.audio != "none":
            self._check_audio()

    def _check_video(self) -> None:
        self._shape("video_shape", "frames, height, width, channels")
        self._shape("video_patch", "frames, height, width")
        self._positive("video_bands")
        self._require(
            all(n % p == 0 for n, p in zip(self.video_shape, self.video_patch, strict=False)),
            "video_shape",
            f"needs multiples of video_patch={self.video_patch}",
        )
        if self.video_max_resolution:
            self._shape("video_max_resolution", "frames, height, width")

    def _check_audio(self) -> None:
        self._positive("samples", "sample_rate", "samples_per_patch", "audio_bands")
        each = "samples_per_patch" if self.audio == "raw" else "mel_hop"
        if self.audio == "mel":
            self._positive("mel_bins", "mel_window", "mel_hop")
            self._require(self.mel_positions in (1, 2), "mel_positions", "must be 1 or 2 axes")
            overhang = self.mel_window - self.mel_hop
            self._require(
                overhang >= 0 and overhang % 2 == 0 and overhang // 2 < self.samples,
                "mel_window",
                f"must be mel_hop={self.mel_hop}, or longer by an even number of samples",
            )
            self._require(self.mel_bin_mask <= self.mel_bins, "mel_bin_mask", "exceeds mel_bins")
            longest = self.samples // self.mel_hop
            self._require(self.mel_time_mask <= longest, "mel_time_mask", f"exceeds {longest}")
            mel.filters(self.sample_rate, self.mel_window, self.mel_bins)  # says if one is empty
        step = getattr(self, each)
        self._require(self.samples % step == 0, "samples", f"must be a multiple of {each}={step}")
        if self.audio_max_resolution:
            axes = "frames, bins" if len(self.audio_grid) == 2 else "elements"
            self._shape("audio_max_resolution", axes)

    @property
    def video_grid(self) -> tuple[int, ...]:
        """Time, height and width in patches; () without video."""
        return tuple(n // p for n, p in zip(self.video_shape, self.video_patch, strict=False))

    @property
    def audio_grid(self) -> tuple[int, ...]:
        """Elements of sound along the axes that their positions have; () without sound."""
        if self.audio == "none":
            return ()
        if self.audio == "raw":
            return (self.samples // self.samples_per_patch,)
        frames = self.samples // self.mel_hop
        return (frames, self.mel_bins) if self.mel_positions == 2 else (frames * self.mel_bins,)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the inputs, in the order of the byte array's segments."""
        return ("video",) * bool(self.video_shape) + ("audio",) * (self.audio != "none")

    @property
    def channels(self) -> int:
        """C of the byte array: of its widest modality, and the embedding if there are two."""
        widths = []
        if self.video_shape:
            frames, height, width = self.video_patch
            values = frames * height * width * self.video_shape[-1]
            widths.append(values + 3 * (2 * self.video_bands + 1))
        if self.audio != "none":
            values = self.samples_per_patch if self.audio == "raw" else 1
            widths.append(values + len(self.audio_grid) * (2 * self.audio_bands + 1))
        return max(widths) + self.modality_channels * (len(widths) == 2)
