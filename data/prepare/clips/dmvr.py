"""TFRecords of clips in the form of DMVR, DeepMind's video reader -> the same data set of clips.

A `tf.train.SequenceExample` each, with the keys of DMVR's own examples: `image/encoded`, a JPEG for
each frame; `WAVEFORM/feature/floats`, the samples; `clip/label/index` or `clip/label/text`. Rates
are not in the records, so they are told.
"""

import dataclasses
import glob
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from scipy import signal

from data.clips import clip_records
from data.images import opencv
from data.prepare.clips import assembly, clip_status, recording, segments, shards, tfrecords
from perceiver.media import video_files

_IMAGE, _SOUND = "image/encoded", "WAVEFORM/feature/floats"
_LABELS = "clip/label/index", "clip/label/text"
_NAMES = "clip/media_id", "video/filename"
_START, _END = "clip/start/timestamp", "clip/end/timestamp"  # microseconds


@dataclasses.dataclass(frozen=True)
class Records(shards.Job):
    """A file of records, which becomes a shard."""

    file: Path
    labels: Mapping[str, int]  # name or MID -> index
    count: int  # classes
    frames_per_second: float
    sample_rate: int

    @property
    def size(self) -> int:
        return 1

    def clips(self) -> Iterator[tuple[clip_records.Clip, str, str]]:
        number = -1  # of the last that was read
        try:
            for number, message in enumerate(tfrecords.read(self.file)):
                yield self._clip(f"{self.file.name}:{number}", message)
        except (OSError, ValueError) as error:
            name = f"{self.file.name}:{number + 1}-"  # with all that follow
            yield _unread(name), "broken", str(error)

    def _clip(self, name: str, message: bytes) -> tuple[clip_records.Clip, str, str]:
        try:
            context, lists = tfrecords.sequence_example(message)
            seconds = (
                float(np.subtract(*(context.get(key, [0])[0] for key in (_END, _START)))) / 1e6
            )
            frames, picture = self._frames(lists.get(_IMAGE, []))
            audio, sound = self._audio(lists.get(_SOUND, []))
            labels = self._labels(context)
            name = f"{name}:{_text(context)}" if _text(context) else name
        except (ValueError, IndexError, TypeError) as error:
            return _unread(name), "broken", str(error)
        covered = [value for value in (picture, sound) if value]
        classified = clip_status.classify(
            frames, audio, covered, seconds or max(covered, default=0.0), []
        )
        clip = clip_records.Clip(
            id=name, frames=classified.frames, audio=classified.audio, labels=labels
        )
        return clip, classified.status, classified.reason

    def _frames(self, features: Sequence[tfrecords.Feature]) -> tuple[list[bytes], float]:
        frames = [_shrunk(jpeg) for feature in features for jpeg in feature]
        seconds = len(frames) / self.frames_per_second
        timed = [(i / self.frames_per_second, frame) for i, frame in enumerate(frames)]
        wanted = video_files.shown([*timed, (seconds, None)], clip_records.FRAMES_PER_SECOND)
        return list(wanted), seconds

    def _audio(self, features: Sequence[tfrecords.Feature]) -> tuple[np.ndarray, float]:
        samples = np.concatenate([np.zeros(0, np.float32), *features])
        seconds = len(samples) / self.sample_rate
        if len(samples) and self.sample_rate != clip_records.SAMPLE_RATE:
            common = math.gcd(clip_records.SAMPLE_RATE, self.sample_rate)
            up, down = clip_records.SAMPLE_RATE // common, self.sample_rate // common
            samples = signal.resample_poly(samples, up, down)
        whole = np.clip(np.rint(samples * 32768), -32768, 32767)
        return whole.astype(np.int16), seconds

    def _labels(self, context: Mapping[str, tfrecords.Feature]) -> np.ndarray:
        numbers, texts = (context.get(key, []) for key in _LABELS)
        # The text where there is one: indices may count otherwise.
        labels = {self._index(text.decode()) for text in texts} or {int(n) for n in numbers}
        outside = [number for number in labels if not 0 <= number < self.count]
        if outside or not labels:
            raise ValueError(
                f"labels {sorted(labels)}: at least one is needed, and all must be below "
                f"{self.count}"
            )
        return np.array(sorted(labels), np.int64)

    def _index(self, text: str) -> int:
        if text not in self.labels:
            raise ValueError(
                f"class {text!r} is not one of the {self.count} known classes: see --labels"
            )
        return self.labels[text]


def prepare(
    name: str,
    records: Mapping[str, str],
    data_dir: str | Path,
    labels: str | Path | None = None,
    *,
    frames_per_second: float = clip_records.FRAMES_PER_SECOND,
    sample_rate: int = clip_records.SAMPLE_RATE,
    run: assembly.RunJobs | None = None,
    log: assembly.Log = print,
) -> assembly.PreparationReport:
    """Returns the report of a data set that is there afterwards; each file becomes a shard.

    Args:
      name: the data set's; small letters, digits and `_`.
      records: split -> files, as a pattern such as `/records/eval-*`.
      data_dir: where data sets lie; empty for TFDS's own folder.
      labels: `class_labels_indices.csv`; None for AudioSet's 527.
      frames_per_second: the records' rate of frames.
      sample_rate: the records' rate of samples.
      run: writes the shards; None for a process on each core.
      log: takes lines of progress.

    Raises:
      FileNotFoundError: a pattern has no files.
      ValueError: the folder holds files of other settings, or no record could be read.
    """
    assembly.check_name(name)
    mids, names = segments.read_classes(labels)
    known = {text: index for texts in (mids, names) for index, text in enumerate(texts)}
    files = {split: sorted(map(Path, glob.glob(pattern))) for split, pattern in records.items()}  # noqa: PTH207 (a pattern may be absolute)
    for split, matches in files.items():
        segments.split_name(split)
        if not matches:
            raise FileNotFoundError(f"no file matches {records[split]} (split {split})")
    rates = {"records_per_second": [frames_per_second, sample_rate]}
    sizes = {s: [[f.name, f.stat().st_size] for f in matches] for s, matches in files.items()}

    def plan(work: Path, classes: Path) -> dict[str, assembly.SplitJobs]:
        return {
            split: assembly.SplitJobs(
                [
                    Records(
                        path=shards.path(work, name, split, i, len(matches)),
                        classes=classes,
                        file=file,
                        labels=known,
                        count=len(names),
                        frames_per_second=frames_per_second,
                        sample_rate=sample_rate,
                    )
                    for i, file in enumerate(matches)
                ]
            )
            for split, matches in files.items()
        }

    return assembly.assemble(
        name,
        names,
        data_dir,
        {"records": sizes, "classes": list(names), **rates, **recording.SETTINGS},
        list(files),
        plan,
        description="Clips of picture and sound from DMVR's records.",
        run=run or assembly.by_processes(0),
        log=log,
    )


def _text(context: Mapping[str, tfrecords.Feature]) -> str:
    names = [context[key][0].decode() for key in _NAMES if len(context.get(key, []))]
    return Path(names[0]).name if names else ""


def _shrunk(jpeg: bytes) -> bytes:
    """Returns the frame, its shorter side at most `SIDE`."""
    size = opencv.jpeg_size(jpeg)
    if size and min(size) <= clip_records.SIDE:
        return jpeg
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None
    if pixels is None:
        raise ValueError("a frame cannot be decoded")
    return recording.encode_jpeg(
        cv2.resize(pixels, recording.fitted(*pixels.shape[1::-1]), interpolation=cv2.INTER_AREA)
    )


def _unread(name: str) -> clip_records.Clip:
    nothing = np.zeros(0, np.int16)
    return clip_records.Clip(id=name, frames=[], audio=nothing, labels=nothing.astype(np.int64))
