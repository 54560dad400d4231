"""What one needs beside the weights to use a model: labels, preprocessing, units.

A plain dict that is saved with the weights (`config.json`); its sections by kind of model:

  clip_classifier    labels: [K names]; video: {frames_per_second}; audio: {sample_rate}
  image_*            labels: [K names]; image: {mean, std, crop_fraction}
  masked_lm*         tokenizer: "bytes"; with file: "sentencepiece", or "tokenizers" (WordPiece and
                     others); or "external": texts become ids elsewhere
  optical_flow       flow: {scale: pixels per unit of the model's output}
  sentence_encoder   labels: [K names, of pairs]; tokenizer and file as of masked_lm
  text_classifier    labels: [K names]; tokenizer and file as of masked_lm; special_tokens: whether
                     [CLS] stands before a text and [SEP] after it
  video_autoencoder  labels: [K names]; video: {frames_per_second}; audio: {sample_rate}
"""

from collections.abc import Sequence
from typing import Any

from perceiver.kinds import specs
from perceiver.media import labels as names
from perceiver.media.images import CROP_FRACTION, IMAGENET_MEAN, IMAGENET_STD

FLOW_SCALE = 20.0  # the released flow model was trained on flow / 20
FRAMES_PER_SECOND = 25  # of both papers' clips, with 1,920 samples to a frame
SAMPLE_RATE = 48_000


def default(spec: specs.Spec, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns how the released models of this kind are used.

    Args:
      spec: of the model.
      labels: names of its classes; None: AudioSet's for 527, Kinetics' for 700,
        ImageNet's for 1,000, else numbers.
    """
    usage = _OF_KIND[spec.kind](spec)
    if hasattr(spec, "classes"):
        usage["labels"] = list(labels) if labels is not None else _labels(spec)
        if len(usage["labels"]) != spec.classes:
            raise ValueError(
                f"{len(usage['labels'])} labels for {spec.classes} classes; give one per class"
            )
    return usage


def _labels(spec) -> list[str]:
    known = {527: names.audioset, 700: names.kinetics700, 1000: names.imagenet}
    if spec.classes in known:
        return list(known[spec.classes]())
    return [f"class {i}" for i in range(spec.classes)]


def _image(spec) -> dict[str, Any]:
    channels = spec.image_shape[-1]
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))
    return {"image": {"mean": list(mean), "std": list(std), "crop_fraction": CROP_FRACTION}}


_OF_KIND = {
    "clip_classifier": lambda spec: {
        "video": {"frames_per_second": FRAMES_PER_SECOND},
        "audio": {"sample_rate": spec.sample_rate},
    },
    **dict.fromkeys(specs.IMAGE_CLASSIFIERS, _image),
    **dict.fromkeys(specs.MASKED_LMS, lambda spec: {"tokenizer": "bytes"}),
    "sentence_encoder": lambda spec: {"tokenizer": "bytes"},
    "text_classifier": lambda spec: {"tokenizer": "bytes"},
    "optical_flow": lambda spec: {"flow": {"scale": FLOW_SCALE}},
    "video_autoencoder": lambda spec: {
        "video": {"frames_per_second": FRAMES_PER_SECOND},
        "audio": {"sample_rate": SAMPLE_RATE},
    },
}
