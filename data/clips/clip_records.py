"""What a prepared clip is: a TFDS record of JPEG frames, samples of sound, and labels.

    id      str            the clip's name, such as its YouTube id and start
    video   [T] JPEG       frames at `FRAMES_PER_SECOND`, the shorter side `SIDE` pixels at most;
                           none of a file without picture
    audio   int16 [S]      samples at `SAMPLE_RATE`, one channel; none of a file without sound
    labels  [L] classes

`tfds.load`'s data source decodes it all; a training run reads a few frames of a clip, and therefore
takes records apart here, without decoding (and without TensorFlow).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

FRAMES_PER_SECOND = 25  # Perceiver, section 4.2
SAMPLE_RATE = 48_000  # Perceiver, section 4.2
SIDE = 256  # pixels: room for crops of 224
SECONDS = 10.0  # AudioSet's clips


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """One record, its frames still encoded."""

    id: str
    frames: Sequence[bytes]  # T JPEG files
    audio: np.ndarray  # int16 [S]
    labels: np.ndarray  # int64 [L]


def features(classes: Sequence[str]) -> Any:
    """Returns the TFDS features of clips with these classes."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "video": tfds.features.Sequence(
                tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
            ),
            "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding="bytes"),
            "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=list(classes))),
        }
    )


class ClipCodec:
    """Clips <-> the bytes of a record."""

    def __init__(self, clip_features: Any):
        """Takes what `features` returns, or the features of a prepared set's builder."""
        from tensorflow_datasets.core import example_parser, example_serializer

        self._features = clip_features
        layout = clip_features.get_serialized_info()
        self._serialiser = example_serializer.ExampleSerializer(layout)
        self._parser = example_parser.ExampleParserNp(layout)

    def encode(self, clip: Clip) -> bytes:
        """Returns the record; TFDS reads it like one of its own."""
        example = {
            "id": clip.id,
            "video": list(clip.frames),
            "audio": np.asarray(clip.audio, np.int16),
            "labels": [int(label) for label in clip.labels],
        }
        message = self._serialiser.get_tf_example(self._features.encode_example(example))
        # Otherwise each process has its own order of the features.
        return message.SerializeToString(deterministic=True)

    def decode(self, record: bytes) -> Clip:
        """Returns the clip; its frames stay JPEG."""
        parsed = self._parser.parse_example(record)
        return Clip(
            id=parsed["id"].decode(),
            frames=list(parsed["video"]),
            audio=np.frombuffer(parsed["audio"], np.int16),
            labels=np.asarray(parsed["labels"], np.int64),
        )
