"""Samples of a data set as files, to try a model on."""

import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from perceiver.media import video_files

NAME_LENGTH = 80  # of a file's name: a clip may be of many classes


def save(folder: Path, images: np.ndarray, names: Sequence[str]) -> Path:
    """Writes images [B, H, W, C] in [0, 1] as PNG files named after their class; returns folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        pixels = np.round(image * 255).astype(np.uint8)
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        picture.save(folder / f"{index}_label_{_safe(name)}.png")
    return folder


def save_clips(
    folder: Path,
    names: Sequence[str],
    *,
    video: np.ndarray | None = None,  # uint8 [B, T, H, W, 3]
    audio: np.ndarray | None = None,  # float32 [B, S] in [-1, 1]
    frames_per_second: float,
    sample_rate: int,
) -> Path | None:
    """Writes clips as MP4, or WAV where there is no picture; returns folder.

    None, and nothing is written, where MP4 needs PyAV and that is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        stem = folder / f"{index}_label_{_safe(name)}"
        if video is None:
            _write_wave(stem.with_suffix(".wav"), audio[index], sample_rate)
            continue
        sound = None if audio is None else audio[index]
        rates = {"frames_per_second": frames_per_second, "sample_rate": sample_rate}
        try:
            video_files.write(stem.with_suffix(".mp4"), video[index], sound, **rates)
        except ImportError:
            return None
    return folder


def _write_wave(path: Path, audio: np.ndarray, sample_rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.round(np.clip(audio, -1, 1) * 32_767).astype("<i2").tobytes())


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)[:NAME_LENGTH]
