"""Clip classifiers: a video, a sound, or both, of any length in; labels and when they hold out."""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from perceiver.inputs.clip import BLACK, SILENT
from perceiver.kinds import specs
from perceiver.media import video_windows
from perceiver.media.video_windows import MediaWindow, Shape
from perceiver.pretrained.runner import Runner
from perceiver.pretrained.use import video as videos

_CALLED = {"video": "picture", "audio": "sound"}


@dataclasses.dataclass(frozen=True)
class Tagged:
    """What is in a video; scores are probabilities, of each class by itself."""

    labels: list[tuple[str, float]]  # best first, of scores averaged over all windows
    timeline: list[tuple[float, list[tuple[str, float]]]]  # (start in seconds, labels) of a window
    seconds: float  # that a window lasts
    missing: tuple[str, ...]  # of "picture", "sound": what the model would take and got nowhere


def prepare(
    spec: specs.ClipClassifier, usage: dict[str, Any], source: Any, audio: Any = None
) -> dict[str, np.ndarray]:
    """Returns {"video": [n, T, H, W, 3] in [-1, 1], "audio": [n, S]} of n windows side by side."""
    shape = window_shape(spec, usage)
    return _inputs(spec, list(windows(spec, usage, source, audio, hop=shape.seconds)))


def window_shape(spec: specs.ClipClassifier, usage: dict[str, Any]) -> Shape:
    """Returns what a window of a model is."""
    frames, *size, _ = spec.video_shape or (0, 1, 1, 3)
    return Shape(
        frames=frames,
        size=tuple(size),
        frames_per_second=usage["video"]["frames_per_second"],
        samples=spec.samples if spec.audio != "none" else 0,
        sample_rate=usage["audio"]["sample_rate"],
    )


def windows(
    spec: specs.ClipClassifier,
    usage: dict[str, Any],
    source: Any,
    audio: Any = None,
    *,
    hop: float,
) -> Iterator[MediaWindow]:
    """Returns windows that start every `hop` seconds.

    Args:
      spec: of the model. usage: frames per second, sample rate.
      source: a media file; or uint8 [T', H', W', 3] at the model's rate; or None: no picture.
      audio: with no file: [S'], int16 or floating in [-1, 1]; None: no sound.
      hop: in seconds.

    Raises:
      FileNotFoundError, ImportError, ValueError: see `video_windows.of_file`; something that is no
        video or no sound.
    """
    shape = window_shape(spec, usage)
    if isinstance(source, str | os.PathLike):
        if audio is not None:
            raise ValueError(
                f"{os.fspath(source)} has its own audio; give a file or arrays, not both"
            )
        return video_windows.of_file(source, shape, hop)
    if source is None and audio is None:
        raise ValueError(
            "give a media file, or video uint8 [frames, height, width, 3], audio, or both"
        )
    pictures, sounds = [], []
    if source is not None and shape.frames:
        pictures = [videos.fit(np.asarray(source), shape.size)]
    if audio is not None and shape.samples:
        sounds = [videos.mono(np.asarray(audio))]
    return video_windows.of_streams(iter(pictures), iter(sounds), shape, hop)


def tag(
    run: Runner, source: Any, audio: Any, usage: dict[str, Any], *, hop: float | None, top_k: int
) -> Tagged:
    """Tags all windows, some at a time; `hop` None: every half of a window."""
    spec = run.model.spec
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    seconds = window_shape(spec, usage).seconds
    starts, scores, present = [], [], set()
    stream = windows(spec, usage, source, audio, hop=seconds / 2 if hop is None else hop)
    while some := list(itertools.islice(stream, run.batch_size)):
        starts += [window.start for window in some]
        scores.append(_sigmoid(run.apply(_inputs(spec, some))))
        present |= {name for name in spec.modalities for w in some if getattr(w, name) is not None}
    scores = np.concatenate(scores)  # [n, K]
    timeline = [_best(row, usage["labels"], top_k) for row in scores]
    return Tagged(
        _best(scores.mean(axis=0), usage["labels"], top_k),
        list(zip(starts, timeline, strict=True)),
        seconds,
        tuple(_CALLED[name] for name in spec.modalities if name not in present),
    )


def _inputs(spec: specs.ClipClassifier, some: Sequence[MediaWindow]) -> dict[str, np.ndarray]:
    """Stacks windows. What one lacks is black or silent, as in training."""
    inputs = {}
    if "video" in spec.modalities:
        inputs["video"] = np.full((len(some), *spec.video_shape), BLACK, np.float32)
        for row, window in zip(inputs["video"], some, strict=True):
            if window.video is not None:
                row[:] = window.video / np.float32(127.5) - 1
    if "audio" in spec.modalities:
        inputs["audio"] = np.full((len(some), spec.samples), SILENT, np.float32)
        for row, window in zip(inputs["audio"], some, strict=True):
            if window.audio is not None:
                row[:] = window.audio
    return inputs


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, 700)))


def _best(scores: np.ndarray, labels: Sequence[str], top_k: int) -> list[tuple[str, float]]:
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [(labels[i], float(scores[i])) for i in order]
