"""Specs: what a model is, as a frozen value that survives JSON and is checked when it is made.

A spec is written as a flat dict with a "kind" (`perceiver.kinds.released.MODELS`, a config's
`model` section, an exported `config.json`); `parse` turns it into one of the dataclasses of this
package. Counts of 0 mean "as the paper's rule says", given beside the field.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from perceiver.kinds.specs.backbone import Backbone
from perceiver.kinds.specs.clip_classifier import ClipClassifier
from perceiver.kinds.specs.image_classifier import ImageClassifier
from perceiver.kinds.specs.image_resnet import ImageResNet
from perceiver.kinds.specs.image_transformer import ImageTransformer
from perceiver.kinds.specs.masked_lm import MaskedLM
from perceiver.kinds.specs.masked_lm_transformer import MaskedLMTransformer
from perceiver.kinds.specs.optical_flow import OpticalFlow
from perceiver.kinds.specs.sentence_encoder import POOLINGS, SentenceEncoder
from perceiver.kinds.specs.spec import DTYPES, Spec
from perceiver.kinds.specs.text_classifier import MULTITASK, TextClassifier
from perceiver.kinds.specs.transformer import Transformer
from perceiver.kinds.specs.video_autoencoder import VideoAutoencoder

__all__ = [
    "DTYPES",
    "IMAGE_CLASSIFIERS",
    "KINDS",
    "MASKED_LMS",
    "MULTITASK",
    "POOLINGS",
    "Backbone",
    "ClipClassifier",
    "ImageClassifier",
    "ImageResNet",
    "ImageTransformer",
    "MaskedLM",
    "MaskedLMTransformer",
    "OpticalFlow",
    "SentenceEncoder",
    "Spec",
    "TextClassifier",
    "Transformer",
    "VideoAutoencoder",
    "parse",
]

_IMAGE_CLASSIFIERS = (ImageClassifier, ImageResNet, ImageTransformer)
_MASKED_LMS = (MaskedLM, MaskedLMTransformer)

KINDS: dict[str, type[Spec]] = {
    cls.kind: cls
    for cls in (
        *_IMAGE_CLASSIFIERS,
        ClipClassifier,
        *_MASKED_LMS,
        OpticalFlow,
        SentenceEncoder,
        TextClassifier,
        VideoAutoencoder,
    )
}
# Kinds that take images and give logits of classes: trained and used in the same way.
IMAGE_CLASSIFIERS = tuple(cls.kind for cls in _IMAGE_CLASSIFIERS)
# The same of kinds that take tokens, some of them hidden, and give logits of tokens.
MASKED_LMS = tuple(cls.kind for cls in _MASKED_LMS)


def parse(spec: Mapping[str, Any] | Spec) -> Spec:
    """Returns the checked spec of a flat dict; errors name the field, its value and the remedy."""
    if isinstance(spec, Spec):
        return spec
    if isinstance(spec, str):
        raise ValueError(f"a spec is a dict, not {spec!r}; did you mean released.MODELS[{spec!r}]?")
    if not hasattr(spec, "items"):  # an ml_collections.ConfigDict is no Mapping
        raise ValueError(f"a spec is a dict, not {spec!r}"[:200])
    fields = dict(spec)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"a model's 'kind' must be one of {', '.join(KINDS)}, not {kind!r}")
    cls = KINDS[kind]
    known = {field.name: field for field in dataclasses.fields(cls)}
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(
                f"{kind} has no field {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    missing = [
        name for name, f in known.items() if f.default is dataclasses.MISSING and name not in fields
    ]
    if missing:
        raise ValueError(f"{kind} needs the fields {', '.join(missing)}")
    return cls(**fields)
