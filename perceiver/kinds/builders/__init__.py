"""Builders: from a spec to the modules of a model, and what each kind takes as inputs."""

from perceiver.kinds.builders import (
    clip_classifier,
    image_classifier,
    image_resnet,
    image_transformer,
    masked_lm,
    masked_lm_transformer,
    optical_flow,
    sentence_encoder,
    text_classifier,
    video_autoencoder,
)
from perceiver.kinds.builders.parts import Inputs, Kind, Parts

__all__ = ["KINDS", "Inputs", "Kind", "Parts"]

KINDS: dict[str, Kind] = {
    "clip_classifier": clip_classifier.KIND,
    "image_classifier": image_classifier.KIND,
    "image_resnet": image_resnet.KIND,
    "image_transformer": image_transformer.KIND,
    "masked_lm": masked_lm.KIND,
    "masked_lm_transformer": masked_lm_transformer.KIND,
    "optical_flow": optical_flow.KIND,
    "sentence_encoder": sentence_encoder.KIND,
    "text_classifier": text_classifier.KIND,
    "video_autoencoder": video_autoencoder.KIND,
}
