"""Optical flow: two frames of any size in, the motion of each pixel out."""

from typing import Any

import numpy as np

from perceiver.kinds import specs
from perceiver.media import images
from perceiver.media.tiles import tiled
from perceiver.pretrained.runner import Runner

OVERLAP = 20  # pixels, at the released model's tiles of 368x496; a quarter of much smaller tiles


def prepare(spec: specs.OpticalFlow, usage: dict[str, Any], frame1: Any, frame2: Any) -> dict:
    """Returns {"frames": [B, 2, H, W, C] in [-1, 1]} for frames of the model's own size."""
    del usage
    frames = read(spec, frame1, frame2)
    if frames.shape[2:] != spec.frame_shape:
        raise ValueError(
            f"frames of {frames.shape[2:4]} do not match the model's {spec.frame_shape[:2]}; "
            "resize them, or use `resized`"
        )
    return {"frames": frames}


def read(spec: specs.OpticalFlow, frame1: Any, frame2: Any) -> np.ndarray:
    """Returns frames [B, 2, H, W, C] in [-1, 1], B = 1 for single frames.

    Args:
      spec: of the model.
      frame1: a file, encoded bytes, a Pillow image, uint8 [H, W, C], or a batch [B, H, W, C].
      frame2: the same, of the same size.

    Raises:
      ValueError: frames of different sizes, or not uint8.
    """
    pair = [_pixels(frame, spec.frame_shape[-1]) for frame in (frame1, frame2)]
    if pair[0].shape != pair[1].shape:
        raise ValueError(
            f"the frames differ in shape: {pair[0].shape} and {pair[1].shape}; optical flow is "
            "between two frames of the same size"
        )
    return (np.stack(pair, axis=1) / np.float32(255)) * 2 - 1


def _pixels(frame: Any, channels: int) -> np.ndarray:  # [B, H, W, C]
    if isinstance(frame, np.ndarray) and frame.ndim == 4:
        if frame.dtype != np.uint8 or frame.shape[-1] != channels:
            raise ValueError(
                f"a batch of frames must be uint8 [B, H, W, {channels}], got {frame.dtype} "
                f"{frame.shape}"
            )
        return frame
    return images.to_array(images.to_pil(frame, channels))[None]


def flow(
    run: Runner, frame1: Any, frame2: Any, usage: dict[str, Any], *, overlap: int | None
) -> np.ndarray:
    """Returns the flow [B, H, W, 2] in pixels, (right, down), from the first frame to the second.

    Frames larger than the model's are cut into tiles that overlap by at least `overlap` pixels, as
    in the paper's evaluation (Perceiver IO, appendix H); None: see OVERLAP.
    """
    tile = run.model.spec.frame_shape[:2]
    overlap = min(OVERLAP, min(tile) // 4) if overlap is None else overlap
    frames = read(run.model.spec, frame1, frame2)
    units = tiled(lambda x: run.apply({"frames": x}), frames, tile=tile, overlap=overlap)
    return units * np.float32(usage["flow"]["scale"])
