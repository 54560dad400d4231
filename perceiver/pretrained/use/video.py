"""Video autoencoders: a video with sound of any length in, its reconstruction and labels out."""

import dataclasses
import os
from typing import Any

import numpy as np

from perceiver.kinds import specs
from perceiver.media import images, video_files
from perceiver.model.host_outputs import decode_to_host
from perceiver.pretrained.runner import Runner
from perceiver.pretrained.use.image import best_of


@dataclasses.dataclass(frozen=True, eq=False)
class Autoencoded:
    """What a model makes of a video."""

    video: np.ndarray  # uint8 [T, H, W, 3]
    audio: np.ndarray  # float32 [S]
    labels: list[tuple[str, float]]  # best first; probabilities averaged over clips


def prepare(
    spec: specs.VideoAutoencoder, usage: dict[str, Any], video: Any, audio: Any = None
) -> dict[str, np.ndarray]:
    """Returns clips {"video": [n, T, H, W, 3] in [0, 1], "audio": [n, S]}; see `read`."""
    return _clips(spec, *read(spec, usage, video, audio))


def read(
    spec: specs.VideoAutoencoder, usage: dict[str, Any], video: Any, audio: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (uint8 [T', H, W, 3], float32 samples of the same duration).

    Args:
      spec: of the model. usage: frames per second, sample rate.
      video: a media file, or uint8 [T', H', W', 3]; frames are cut to the model's aspect ratio.
      audio: [S'], int16 or floating in [-1, 1]; None: the file's, or silence.

    Raises:
      FileNotFoundError, ImportError, ValueError: no such file, no PyAV, something that is no video
        or no sound of its length.
    """
    frames, height, width, _ = spec.video_shape
    each = spec.samples // frames  # samples to a frame
    if isinstance(video, str | os.PathLike):
        rates = (usage["video"]["frames_per_second"], usage["audio"]["sample_rate"])
        video, sound = video_files.read(
            video, (height, width), frames_per_second=rates[0], sample_rate=rates[1]
        )
    else:
        video, sound = fit(np.asarray(video), (height, width)), None
    audio = sound if audio is None else mono(np.asarray(audio))
    total = len(video) * each
    audio = np.zeros(total, np.float32) if audio is None else audio
    if abs(len(audio) - total) > each:
        raise ValueError(
            f"{len(audio)} audio samples do not match {len(video)} frames, which need {total}: "
            f"{each} per frame"
        )
    sized = np.zeros(total, np.float32)
    sized[: min(len(audio), total)] = audio[:total]
    return video, sized


def _clips(spec: specs.VideoAutoencoder, video: np.ndarray, audio: np.ndarray):
    """Cuts into clips; the last is filled up with its last frame, and with silence."""
    frames = spec.video_shape[0]
    count = -(-len(video) // frames)
    missing = count * frames - len(video)
    video = np.concatenate([video, np.repeat(video[-1:], missing, axis=0)])
    padded = np.zeros(count * spec.samples, np.float32)
    padded[: len(audio)] = audio
    return {
        "video": (video / np.float32(255)).reshape(count, *spec.video_shape),
        "audio": padded.reshape(count, spec.samples),
    }


def fit(video: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cuts uint8 [T, H', W', 3] to an aspect ratio and resizes it to [T, H, W, 3]."""
    if video.ndim != 4 or video.dtype != np.uint8 or video.shape[-1] != 3 or not len(video):
        raise ValueError(
            f"a video must be uint8 [frames, height, width, 3], got {video.dtype} {video.shape}"
        )
    if video.shape[1:3] == size:
        return video
    aspect = size[1] / size[0]
    pictures = [images.to_pil(frame, 3) for frame in video]
    return np.stack([images.resize(p, size, images.central_box(p, 1.0, aspect)) for p in pictures])


def mono(audio: np.ndarray) -> np.ndarray:
    """Brings int16 or floating [S] or [S, channels] to float32 [S] in [-1, 1].

    Raises:
      ValueError: nothing in it, more channels than samples, another dtype, or values out of range.
    """
    if not audio.size:
        raise ValueError(f"audio {audio.shape} has nothing in it")
    if audio.dtype == np.int16:
        audio = audio / np.float32(2**15)
    if audio.ndim == 2 and audio.shape[0] < audio.shape[1]:
        raise ValueError(
            f"audio must be [samples] or [samples, channels], got {audio.shape}: {audio.shape[0]} "
            f"samples of {audio.shape[1]} channels; if it is [channels, samples], give audio.T"
        )
    if audio.ndim == 2:
        audio = audio.mean(axis=-1)
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(
            f"audio must be int16 or floating [samples], got {audio.dtype} {audio.shape}"
        )
    if not np.isfinite(audio).all() or np.abs(audio).max(initial=0) > 1:
        raise ValueError(f"audio must lie in [-1, 1], but reaches {np.abs(audio).max()}")
    return audio.astype(np.float32)


def autoencode(
    run: Runner, video: Any, audio: Any, usage: dict[str, Any], *, top_k: int
) -> Autoencoded:
    """Encodes and decodes clip by clip, the pixels of some frames at a time."""
    video, audio = read(run.model.spec, usage, video, audio)
    clips = _clips(run.model.spec, video, audio)
    count = len(clips["video"])
    results = [_clip(run, {name: x[i : i + 1] for name, x in clips.items()}) for i in range(count)]
    pictures, sound, logits = (np.concatenate(parts) for parts in zip(*results, strict=True))
    pictures = np.round(np.clip(pictures[: len(video)], 0, 1) * 255).astype(np.uint8)
    return Autoencoded(pictures, sound[: len(audio)], best_of(logits, usage["labels"], top_k))


def _clip(run: Runner, inputs: dict[str, np.ndarray]):
    """Returns video [T, H, W, 3], audio [S] and logits [1, K] of one clip."""
    latents = run.latents(inputs)
    queries = run.queries(latents)
    rows = {
        name: decode_to_host(lambda piece, n=name: run.decode(latents, {n: piece})[n], some)
        for name, some in queries.items()
    }
    pictures = rows["video"].reshape(run.model.spec.video_shape)
    return pictures, rows["audio"].reshape(-1), rows["label"].reshape(1, -1)
