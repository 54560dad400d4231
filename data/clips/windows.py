"""Windows of a clip: which of its frames, and which of its samples.

Frames are chosen while they are still encoded, so that only those of a window are ever decoded.
Picture and sound of a window begin at the same time. A window that reaches past the end repeats the
last frame and goes on in silence.
"""

import dataclasses

import numpy as np

from data.clips import audio
from data.clips.clip_records import FRAMES_PER_SECOND, SAMPLE_RATE
from data.dataset import Example

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAMES_PER_SECOND


@dataclasses.dataclass(frozen=True)
class ClipWindow:
    """The length of a window; a modality of length 0 is left out."""

    frames: int  # T
    samples: int  # S

    def last_start(self, example: Example) -> int:
        """Returns the last start, in frames, of a window that ends within the clip; at least 0.

        The clip is as long as the longer of picture and sound, for its labels hold of both.
        """
        there = length = 0
        if self.frames:
            there, length = len(example["frames"]), self.frames
        if self.samples:
            there = max(there, len(example["sound"]) // SAMPLES_PER_FRAME)
            length = max(length, -(-self.samples // SAMPLES_PER_FRAME))
        return max(there - length, 0)

    def places(self, example: Example, starts: np.ndarray) -> np.ndarray:  # [V] -> int [V, T]
        """Returns the numbers of the frames of windows."""
        there = len(example["frames"])
        return np.minimum(starts[:, None] + np.arange(self.frames), max(there - 1, 0))


@dataclasses.dataclass(frozen=True)
class RandomWindow:
    """Training: one window, every start within the clip equally likely."""

    window: ClipWindow
    time_jitter: int = 0  # samples by which the sound may shift against the picture, each way

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds `places` int [T] for `frames`, and `audio` float32 [S] from `sound` int16 [S']."""
        start = int(rng.integers(self.window.last_start(example), endpoint=True))
        if self.window.frames:
            places = self.window.places(example, np.array([start]))[0]
            example = example | {"places": places}
        if self.window.samples:
            sample = audio.jitter(start * SAMPLES_PER_FRAME, self.time_jitter, rng)
            example = example | {"audio": audio.cut(example["sound"], sample, self.window.samples)}
        return example


@dataclasses.dataclass(frozen=True)
class EvenWindows:
    """Evaluation: windows evenly spaced over the clip, the first at its start, the last at its end.

    Perceiver, section 4.2: 16 overlapping windows over the 10 s of a clip.
    """

    window: ClipWindow
    count: int  # V

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Adds `places` int [V, T] for `frames`, and `audio` float32 [V, S]."""
        last = self.window.last_start(example)
        starts = np.round(np.linspace(0, last, self.count)).astype(int)
        if self.window.frames:
            example = example | {"places": self.window.places(example, starts)}
        if self.window.samples:
            samples = starts * SAMPLES_PER_FRAME
            cuts = [audio.cut(example["sound"], s, self.window.samples) for s in samples]
            example = example | {"audio": np.stack(cuts)}
        return example
