"""A model with its weights, as an object to work with; `perceiver.load` makes one."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from perceiver.kinds import specs
from perceiver.kinds.models import Model, build
from perceiver.kinds.resize import resize
from perceiver.pretrained.runner import Runner
from perceiver.pretrained.use import (
    clips,
    flow,
    image,
    items,
    maps,
    sentences,
    text,
    text_classes,
    video,
)
from perceiver.weights import formats, native

# What each kind of model can do besides `__call__`, `embed`, `attention_maps`, `save`.
TASKS = {
    **dict.fromkeys(specs.IMAGE_CLASSIFIERS, ("classify",)),
    "clip_classifier": ("tag",),
    **dict.fromkeys(specs.MASKED_LMS, ("fill_mask",)),
    "optical_flow": ("flow",),
    "sentence_encoder": ("compare",),
    "text_classifier": ("classify",),
    "video_autoencoder": ("autoencode",),
}
# From what a user gives to a dict of raw inputs: (spec, usage, *given).
PREPARE = {
    **dict.fromkeys(specs.IMAGE_CLASSIFIERS, image.prepare),
    "clip_classifier": clips.prepare,
    **dict.fromkeys(specs.MASKED_LMS, text.prepare),
    "optical_flow": flow.prepare,
    "sentence_encoder": sentences.prepare,
    "text_classifier": text_classes.prepare,
    "video_autoencoder": video.prepare,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A model, its weights on the device, and how it is used.

    Functions are compiled for each shape of inputs that they meet. Methods take one input or a
    list; for one they return one result.
    """

    model: Model
    params: Any  # {module path: {name: array}}
    state: Any  # of the network: batch norm's averages
    usage: dict[str, Any]  # labels, preprocessing, units: see perceiver.kinds.usage
    source: str = ""  # where the weights come from, for messages
    batch_size: int = 16  # examples on the device at a time

    @property
    def spec(self) -> specs.Spec:
        return self.model.spec

    def __repr__(self) -> str:
        count = sum(math.prod(x.shape) for part in self.params.values() for x in part.values())
        return (
            f"<{type(self).__name__} {self.kind} {self.source or 'unnamed'}: {count:,} parameters>"
        )

    def __reduce__(self):
        """Pickles the spec and the arrays; programs are compiled again."""
        fields = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return type(self), tuple(fields)

    @property
    def kind(self) -> str:
        """One of `specs.KINDS`."""
        return self.spec.kind

    @property
    def config(self) -> dict[str, Any]:
        """The model as the flat dict that `perceiver.build` and a config's `model` take."""
        return self.spec.to_dict()

    @functools.cached_property
    def runner(self) -> Runner:
        return Runner(self.model, self.params, self.state, self.batch_size)

    def __call__(self, inputs: dict[str, Any]) -> Any:
        """Returns the outputs of raw inputs, see `model.example_inputs`; any number of examples."""
        return self.runner.apply({name: np.asarray(x) for name, x in inputs.items()})

    def fill_mask(self, texts, *, spans=None, top_k: int = 5):
        """Fills in masked tokens, bytes or subwords: `fill_mask("some words are[MASK:9]")`.

        Args:
          texts: a text or several, each token to fill in marked [MASK], n of them [MASK:n].
          spans: instead of marks, the (start, stop) bytes to hide (of each text, if several).
          top_k: candidates for each token.

        Returns:
          `use.text.Filled`, or a list of them.

        Raises:
          ValueError: nothing is masked, a text is too long, or this is no masked_lm.
        """
        self._require("fill_mask")
        texts = items.plain(texts)
        items.texts(texts)
        if items.several(texts):
            return text.fill_mask(self.runner, texts, self.usage, spans=spans, top_k=top_k)
        spans = None if spans is None else [spans]
        return text.fill_mask(self.runner, [texts], self.usage, spans=spans, top_k=top_k)[0]

    def classify(self, inputs, *, top_k: int = 5, task: str = ""):
        """Returns the best (label, probability) pairs of one input, or a list for each of several.

        A model of texts that was trained on numbers returns (label, number).

        Args:
          inputs: pictures: files, encoded bytes, Pillow images, or uint8 [H, W, C] of any size; or
            texts, a pair of texts being a tuple.
          top_k: how many labels.
          task: of a model of texts that has several.

        Raises:
          FileNotFoundError, ValueError: no picture, an empty text, or a model of another kind.
        """
        self._require("classify")
        inputs = items.plain(inputs)
        if self.kind == "text_classifier":
            results = text_classes.classify(self.runner, inputs, self.usage, top_k=top_k, task=task)
            return results if text_classes.several(inputs) else results[0]
        if task:
            raise ValueError(f"task={task!r}: an image classifier has only one task")
        results = image.classify(self.runner, inputs, self.usage, top_k=top_k)
        return results if items.several(inputs) else results[0]

    def compare(self, first, second, *, top_k: int = 5):
        """Tells how alike two texts are: `use.sentences.Compared`, or a list of them.

        Args:
          first: a text, or several.
          second: the same, of the same number.
          top_k: how many labels, of a model that was trained to classify pairs.

        Raises:
          ValueError: an empty text, different numbers, or this is no sentence_encoder.
        """
        self._require("compare")
        first, second = items.plain(first), items.plain(second)
        if not items.several(first):
            return sentences.compare(self.runner, [(first, second)], self.usage, top_k=top_k)[0]
        if len(first) != len(second):
            raise ValueError(
                f"{len(first)} first texts but {len(second)} second texts; give as many of each"
            )
        pairs = list(zip(first, second, strict=True))
        return sentences.compare(self.runner, pairs, self.usage, top_k=top_k)

    def flow(self, frame1, frame2, *, overlap: int | None = None) -> np.ndarray:
        """Returns the motion from one frame to the next: float32 [H, W, 2], pixels (right, down).

        Args:
          frame1: a file, encoded bytes, a Pillow image, uint8 [H, W, C] of any size; or a batch
            [B, H, W, C], which gives [B, H, W, 2].
          frame2: the same, of the same size.
          overlap: pixels that tiles of larger frames have in common, at least; None: 20, as in the
            released evaluation, or a quarter of a smaller tile.

        Raises:
          FileNotFoundError, ValueError: no picture, sizes that differ, or this is no optical_flow.
        """
        self._require("flow")
        frame1, frame2 = items.plain(frame1), items.plain(frame2)
        results = flow.flow(self.runner, frame1, frame2, self.usage, overlap=overlap)
        return results if items.several(frame1) else results[0]

    def tag(self, source, audio=None, *, hop: float | None = None, top_k: int = 5) -> clips.Tagged:
        """Tells what is seen and heard in a video or sound of any length, and when.

        Args:
          source: a media file; or uint8 [T', H', W', 3], at the model's frames per second; or None.
          audio: with no file: [S'] in [-1, 1] or int16, at the model's sample rate; or None.
          hop: seconds from one window to the next; None: half of a window.
          top_k: how many labels.

        Raises:
          FileNotFoundError, ImportError, ValueError: no such file, no PyAV, neither picture nor
            sound, or this is no clip_classifier.
        """
        self._require("tag")
        return clips.tag(self.runner, source, audio, self.usage, hop=hop, top_k=top_k)

    def autoencode(self, source, audio=None, *, top_k: int = 5) -> video.Autoencoded:
        """Encodes a video with sound and decodes it again, with the class that it seems to be.

        Args:
          source: a media file, or uint8 [T, H', W', 3] of any length and size.
          audio: [S'] in [-1, 1] or int16, at the model's sample rate; None: the file's, or silence.
          top_k: how many labels.

        Raises:
          FileNotFoundError, ImportError, ValueError: no such file, no PyAV, something that is no
            video, or this is no video_autoencoder.
        """
        self._require("autoencode")
        return video.autoencode(self.runner, source, audio, self.usage, top_k=top_k)

    def embed(self, *inputs, pool: Callable | None = np.mean) -> np.ndarray:
        """Returns the latents of inputs, averaged: float32 [B, D] (features, without latents).

        Of a sentence encoder the embeddings [n, E] of any number of texts, pooled as it was
        trained; a text longer than the model is cut, between two characters.

        Args:
          inputs: what the task's method takes (text or texts, picture or pictures, two frames,
            video and audio), or a dict of raw inputs.
          pool: a function of [B, N, D] and axis=1, e.g. `np.max`; None: the latents [B, N, D].
            Other than the default, it takes the place of a sentence encoder's own pooling.
        """
        as_given = inputs and not isinstance(inputs[0], dict)
        if self.kind == "sentence_encoder" and pool is np.mean and as_given:
            return sentences.embed(self.runner, *map(items.plain, inputs), self.usage)
        if self.kind in specs.IMAGE_CLASSIFIERS and len(inputs) == 1 and as_given:

            def embed(some):
                return self.embed({"image": self._prepare(some)["image"]}, pool=pool)

            return items.in_batches(items.plain(inputs[0]), self.batch_size, embed)
        prepared = self._prepare(*inputs)
        latents = self.runner.encode(prepared).astype(np.float32)
        if pool is None:
            return latents
        if not self.spec.has_latents and "input_mask" in prepared:  # a feature for each token
            return text.pool_tokens(latents, prepared["input_mask"], pool)
        return pool(latents, axis=1)

    def attention_maps(self, *inputs) -> list[dict[str, np.ndarray]]:
        """Returns what the latents attend to, for each cross-attend.

        Of each modality an array [B, H, N, *dims], dims being its own: h and w of an image, bytes
        of a text; the weights of a latent sum to 1 over all modalities. Inputs are those of
        `embed`. Large: N x M x 4 bytes for an example and a head.
        """
        prepared = self._prepare(*inputs)
        return maps.by_modality(self.model, prepared, self.runner.attention_maps(prepared))

    def resized(self, height: int, width: int) -> "Pretrained":
        """Returns the model for images of another size, see `perceiver.kinds.resize`."""
        spec, params = resize(self.spec, self.params, (height, width))
        return dataclasses.replace(self, model=build(spec), params=params)

    def save(self, folder: str | os.PathLike, *, to: str = "native", **options) -> None:
        """Writes the model as `perceiver.load` reads it, or as Hugging Face's `from_pretrained`.

        Args:
          folder: to write into.
          to: native, huggingface.
          options: of the format, see `perceiver.weights.formats.save`.
        """
        saved = native.Saved(self.model, self.params, self.state, self.usage)
        formats.save(folder, saved, to=to, **options)

    def _prepare(self, *given) -> dict[str, Any]:
        if not given:
            raise ValueError(
                f"give the inputs of {' or '.join(TASKS[self.kind])}, or a dict of arrays"
            )
        if isinstance(given[0], dict):
            return {name: np.asarray(x) for name, x in given[0].items()}
        given = [None if item is None else items.plain(item) for item in given]
        return PREPARE[self.kind](self.spec, self.usage, *given)

    def _require(self, task: str) -> None:
        if task not in TASKS[self.kind]:
            able = ", ".join((*TASKS[self.kind], "embed", "attention_maps"))
            raise ValueError(
                f"{self.source or 'this'} is a model of kind {self.kind}, which does not support "
                f"{task}; it supports {able}"
            )
