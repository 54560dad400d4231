"""Forward FLOPs of a model, counted on paper from its spec: nothing is built, traced or run.

A multiply and an add are two FLOPs, as in the papers (Perceiver, appendix B; Perceiver IO, appendix
D). What is counted are the matrix products and convolutions of the dense form, that is of the
`reference` attention kernel on the whole byte array and all queries; a path that exploits structure
does less. Of two projections that are multiplied before they are used, the product is counted.
A "SAME" convolution counts its padding.

Left out is what costs a few FLOPs per element rather than per element and channel: norms, softmax,
GELU, biases, residual sums, pooling, Fourier features: about half a percent at the papers' sizes.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from perceiver import specs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One operation, done `times` times with the same sizes."""

    part: str  # inputs, cross-attends, processors, outputs
    operation: str
    once: int  # FLOPs of doing it one time
    times: int = 1
    shared: bool = False  # True: done once for a batch, because it does not depend on the example

    @property
    def flops(self) -> int:
        """FLOPs of all times together."""
        return self.once * self.times


def forward(spec: Mapping[str, Any] | specs.Backbone) -> tuple[Row, ...]:
    """Returns the operations of a forward pass, part by part.

    Raises:
      ValueError: the spec is wrong.
    """
    spec = specs.parse(spec)
    count_inputs, _, count_outputs = _KINDS[spec.kind]
    elements, channels = byte_array(spec)
    latents, width = spec.latents, spec.latent_channels
    stages = len(spec.sharing.stages)
    cross = _attention(
        queries=(latents, width),
        keys=(elements, channels),
        qk_channels=spec.cross_qk_channels or channels,
        v_channels=spec.cross_v_channels or channels,
    ) | _mlp(latents, width, spec.cross_widening)
    process = _attention(
        queries=(latents, width),
        keys=(latents, width),
        qk_channels=spec.self_qk_channels or width,
        v_channels=spec.self_v_channels or width,
    ) | _mlp(latents, width, spec.self_widening)
    return (
        *count_inputs(spec),
        *_rows("cross-attends", cross, times=stages),
        *_rows("processors", process, times=stages * spec.blocks * spec.layers),
        *count_outputs(spec),
    )


def total(rows: tuple[Row, ...], batch_size: int = 1) -> int:
    """Returns the FLOPs of a whole batch."""
    return sum(row.flops * (1 if row.shared else batch_size) for row in rows)


def per_example(rows: tuple[Row, ...]) -> int:
    """Returns the FLOPs that each further example costs: what the papers' tables list."""
    return sum(row.flops for row in rows if not row.shared)


def byte_array(spec: specs.Backbone) -> tuple[int, int]:
    """Returns M and C, the elements and channels of the byte array."""
    return _KINDS[spec.kind][1](spec)


def _rows(part: str, operations: dict[str, int], times: int = 1) -> list[Row]:
    return [
        Row(part=part, operation=name, once=flops, times=times)
        for name, flops in operations.items()
    ]


def _linear(elements: int, fan_in: int, fan_out: int) -> int:
    return 2 * elements * fan_in * fan_out


def _attention(
    *, queries: tuple[int, int], keys: tuple[int, int], qk_channels: int, v_channels: int
) -> dict[str, int]:
    """Queries (elements, channels) attend to keys; the number of heads cancels out."""
    (q_elements, q_channels), (k_elements, k_channels) = queries, keys
    return {
        "project queries": _linear(q_elements, q_channels, qk_channels),
        "project keys": _linear(k_elements, k_channels, qk_channels),
        "project values": _linear(k_elements, k_channels, v_channels),
        "logits": _linear(q_elements, qk_channels, k_elements),
        "weighted values": _linear(q_elements, k_elements, v_channels),
        "project result": _linear(q_elements, v_channels, q_channels),
    }


def _mlp(elements: int, channels: int, widening: int) -> dict[str, int]:
    return {"MLP": 2 * _linear(elements, channels, channels * widening)}


def _image_grid(spec: specs.ImageClassifier) -> tuple[int, int]:
    height, width, _ = spec.image_shape
    if spec.stem == "conv":  # a convolution and a pooling, each of stride 2 with "SAME" padding
        return math.ceil(height / 4), math.ceil(width / 4)
    return height, width


def _image_byte_array(spec: specs.ImageClassifier) -> tuple[int, int]:
    content = spec.image_shape[2] if spec.stem == "pixels" else spec.stem_channels
    fourier = 2 * (2 * spec.bands + 1)  # two axes: raw position, sines, cosines
    positions = fourier if spec.positions == "fourier" else spec.position_channels
    return math.prod(_image_grid(spec)), content + positions


def _image_inputs(spec: specs.ImageClassifier) -> list[Row]:
    height, width, channels = spec.image_shape
    rows = []
    if spec.stem == "conv1x1":
        project = _linear(height * width, channels, spec.stem_channels)
        rows.append(Row(part="inputs", operation="project pixels", once=project))
    if spec.stem == "conv":
        pixels = math.ceil(height / 2) * math.ceil(width / 2)
        convolve = _linear(pixels, 7 * 7 * channels, spec.stem_channels)
        rows.append(Row(part="inputs", operation="convolution 7x7", once=convolve))
    if spec.positions == "learned":
        size, wide = math.prod(_image_grid(spec)), spec.position_channels
        project = _linear(size, wide, wide)
        rows.append(Row(part="inputs", operation="project positions", once=project, shared=True))
    return rows


def _image_outputs(spec: specs.ImageClassifier) -> list[Row]:
    latents, width = spec.latents, spec.latent_channels
    if spec.head == "mean":
        return _rows("outputs", {"classes": _linear(1, width, spec.classes)})
    attend = _attention(
        queries=(1, spec.query_channels),
        keys=(latents, width),
        qk_channels=width,
        v_channels=width,
    )
    classes = {"classes": _linear(1, spec.query_channels, spec.classes)}
    return _rows("outputs", attend | _mlp(1, spec.query_channels, widening=1) | classes)


def _flow_byte_array(spec: specs.OpticalFlow) -> tuple[int, int]:
    return math.prod(spec.frame_shape[:2]), spec.patch_channels + 2 * (2 * spec.bands + 1)


def _flow_inputs(spec: specs.OpticalFlow) -> list[Row]:
    pixels, _ = _flow_byte_array(spec)
    values = 2 * spec.patch_size**2 * spec.frame_shape[-1]
    convolve = _linear(pixels, values, spec.patch_channels)
    return [Row(part="inputs", operation="project patches", once=convolve)]


def _flow_outputs(spec: specs.OpticalFlow) -> list[Row]:
    pixels, channels = _flow_byte_array(spec)
    attend = _attention(
        queries=(pixels, channels),
        keys=(spec.latents, spec.latent_channels),
        qk_channels=spec.query_qk_channels or spec.latent_channels,
        v_channels=spec.query_v_channels or spec.latent_channels,
    )
    flow = {"flow": _linear(pixels, channels, 2)}
    return _rows("outputs", attend | _mlp(pixels, channels, widening=1) | flow)


def _video_byte_array(spec: specs.VideoAutoencoder) -> tuple[int, int]:
    return math.prod(spec.video_grid) + spec.audio_patches + 1, spec.channels


def _video_inputs(spec: specs.VideoAutoencoder) -> list[Row]:
    return []  # pixels, samples and the label enter as they are


def _video_outputs(spec: specs.VideoAutoencoder) -> list[Row]:
    width, channels = spec.latent_channels, spec.query_channels
    sizes = {
        "audio": (spec.audio_patches, spec.samples_per_patch),
        "video": (math.prod(spec.video_shape[:-1]), spec.video_shape[-1]),
        "label": (1, spec.classes),
    }
    queries = sum(size for size, _ in sizes.values())
    attend = _attention(
        queries=(queries, channels),
        keys=(spec.latents, width),
        qk_channels=width,
        v_channels=width,
    )
    of_latents = [  # by each modality, with the same weights
        Row(part="outputs", operation=name, once=attend.pop(name), times=len(sizes))
        for name in ("project keys", "project values")
    ]
    outs = sum(out for _, out in sizes.values())
    compose = _linear(channels + 1, spec.decoder_channels, outs)  # matrix and bias
    return [
        *of_latents,
        *_rows("outputs", attend | _mlp(queries, channels, widening=1)),
        *_rows("outputs", {k: _linear(size, channels, out) for k, (size, out) in sizes.items()}),
        Row(part="outputs", operation="compose projections", once=compose, shared=True),
    ]


def _text_byte_array(spec: specs.MaskedLM) -> tuple[int, int]:
    return spec.max_length, spec.embedding_channels


def _text_inputs(spec: specs.MaskedLM) -> list[Row]:
    return []  # rows of a table are looked up and added


def _text_outputs(spec: specs.MaskedLM) -> list[Row]:
    length, channels = spec.max_length, spec.embedding_channels
    attend = _attention(
        queries=(length, channels),
        keys=(spec.latents, spec.latent_channels),
        qk_channels=spec.query_qk_channels,
        v_channels=channels,
    )
    vocabulary = {"vocabulary": _linear(length, channels, spec.vocabulary)}
    return _rows("outputs", attend | _mlp(length, channels, widening=1) | vocabulary)


# kind -> rows of the inputs, (M, C) of the byte array, rows of the outputs
_KINDS = {
    "image_classifier": (_image_inputs, _image_byte_array, _image_outputs),
    "masked_lm": (_text_inputs, _text_byte_array, _text_outputs),
    "optical_flow": (_flow_inputs, _flow_byte_array, _flow_outputs),
    "video_autoencoder": (_video_inputs, _video_byte_array, _video_outputs),
}
