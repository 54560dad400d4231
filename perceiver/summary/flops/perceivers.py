"""The count of each kind of Perceiver, and of a Transformer in its place."""

import math

from perceiver.kinds import specs
from perceiver.summary.flops.rows import Row, attention, kernel_of, linear, mlp, rows


def forward(spec: specs.Backbone) -> tuple[Row, ...]:
    """Returns the operations of a forward pass, part by part."""
    count_inputs, _, count_outputs = _KINDS[spec.kind]
    return (
        *count_inputs(spec),
        *(_cross_attends(spec) if spec.has_latents else _projection(spec)),
        *rows("processors", _self_attend(spec), times=spec.depth),
        *count_outputs(spec),
    )


def byte_array(spec: specs.Backbone) -> tuple[int, int]:
    """Returns M and C, the elements and channels of the byte array."""
    return _KINDS[spec.kind][1](spec)


def _features(spec: specs.Backbone) -> tuple[int, int]:
    """Returns N and D, the elements and channels that processors work on and heads read."""
    return spec.latents if spec.has_latents else byte_array(spec)[0], spec.latent_channels


def _projection(spec: specs.Backbone) -> list[Row]:
    elements, channels = byte_array(spec)
    project = linear(elements, channels, spec.latent_channels)
    return [Row(part="inputs", operation="project elements", once=project)]


def _cross_attends(spec: specs.Backbone) -> list[Row]:
    elements, channels = byte_array(spec)
    latents, width = spec.latents, spec.latent_channels
    cross = attention(
        queries=(latents, width),
        keys=(elements, channels),
        qk_channels=spec.cross_qk_channels or channels,
        v_channels=spec.cross_v_channels or channels,
        **kernel_of(spec, spec.cross_heads),
    ) | mlp(latents, width, spec.cross_widening)
    return rows("cross-attends", cross, times=len(spec.sharing.stages))


def _self_attend(spec: specs.Backbone) -> dict[str, int]:
    features = elements, width = _features(spec)
    return attention(
        queries=features,
        keys=features,
        qk_channels=spec.self_qk_channels or width,
        v_channels=spec.self_v_channels or width,
        **kernel_of(spec, spec.self_heads),
    ) | mlp(elements, width, spec.self_widening)


def _image_byte_array(spec: specs.ImageClassifier) -> tuple[int, int]:
    content = spec.image_shape[2] if spec.stem == "pixels" else spec.stem_channels
    fourier = 2 * (2 * spec.bands + 1)  # two axes: raw position, sines, cosines
    positions = fourier if spec.positions == "fourier" else spec.position_channels
    return math.prod(spec.grid), content + positions


def _image_inputs(spec: specs.ImageClassifier) -> list[Row]:
    height, width, channels = spec.image_shape
    rows = []
    if spec.stem == "conv1x1":
        project = linear(height * width, channels, spec.stem_channels)
        rows.append(Row(part="inputs", operation="project pixels", once=project))
    if spec.stem == "conv":
        window, stride = spec.stem_window, spec.stem_stride
        pixels = math.ceil(height / stride) * math.ceil(width / stride)
        convolve = linear(pixels, window**2 * channels, spec.stem_channels)
        name = f"convolution {window}x{window}"
        rows.append(Row(part="inputs", operation=name, once=convolve))
    if spec.positions == "learned":
        size, wide = math.prod(spec.grid), spec.position_channels
        project = linear(size, wide, wide)
        rows.append(Row(part="inputs", operation="project positions", once=project, shared=True))
    return rows


def _class_outputs(spec: specs.ImageClassifier | specs.ClipClassifier) -> list[Row]:
    latents, width = _features(spec)
    if spec.head == "mean":
        return rows("outputs", {"classes": linear(1, width, spec.classes)})
    attend = attention(
        queries=(1, spec.query_channels),
        keys=(latents, width),
        qk_channels=width,
        v_channels=width,
        **kernel_of(spec, spec.query_heads),
    )
    classes = {"classes": linear(1, spec.query_channels, spec.classes)}
    return rows("outputs", attend | mlp(1, spec.query_channels, widening=1) | classes)


def _clip_byte_array(spec: specs.ClipClassifier) -> tuple[int, int]:
    grids = (spec.video_grid, spec.audio_grid)
    return sum(math.prod(grid) for grid in grids if grid), spec.channels


def _clip_inputs(spec: specs.ClipClassifier) -> list[Row]:
    if spec.audio != "mel":
        return []  # pixels and samples enter as they are
    frames = spec.samples // spec.mel_hop
    filters = linear(frames, spec.mel_window // 2 + 1, spec.mel_bins)
    return [Row(part="inputs", operation="mel filters", once=filters)]


def _flow_byte_array(spec: specs.OpticalFlow) -> tuple[int, int]:
    return math.prod(spec.frame_shape[:2]), spec.patch_channels + 2 * (2 * spec.bands + 1)


def _flow_inputs(spec: specs.OpticalFlow) -> list[Row]:
    pixels, _ = _flow_byte_array(spec)
    values = 2 * spec.patch_size**2 * spec.frame_shape[-1]
    convolve = linear(pixels, values, spec.patch_channels)
    return [Row(part="inputs", operation="project patches", once=convolve)]


def _flow_outputs(spec: specs.OpticalFlow) -> list[Row]:
    pixels, channels = _flow_byte_array(spec)
    attend = attention(
        queries=(pixels, channels),
        keys=_features(spec),
        qk_channels=spec.query_qk_channels or spec.latent_channels,
        v_channels=spec.query_v_channels or spec.latent_channels,
        **kernel_of(spec, spec.query_heads),
    )
    flow = {"flow": linear(pixels, channels, 2)}
    return rows("outputs", attend | mlp(pixels, channels, widening=1) | flow)


def _video_byte_array(spec: specs.VideoAutoencoder) -> tuple[int, int]:
    return math.prod(spec.video_grid) + spec.audio_patches + 1, spec.channels


def _video_inputs(spec: specs.VideoAutoencoder) -> list[Row]:
    return []  # pixels, samples and the label enter as they are


def _video_outputs(spec: specs.VideoAutoencoder) -> list[Row]:
    (latents, width), channels = _features(spec), spec.query_channels
    sizes = {
        "audio": (spec.audio_patches, spec.samples_per_patch),
        "video": (math.prod(spec.video_shape[:-1]), spec.video_shape[-1]),
        "label": (1, spec.classes),
    }
    queries = sum(size for size, _ in sizes.values())
    attend = attention(
        queries=(queries, channels),
        keys=(latents, width),
        qk_channels=width,
        v_channels=width,
        **kernel_of(spec, spec.query_heads),
    )
    of_latents = [  # by each modality, with the same weights
        Row(part="outputs", operation=name, once=attend.pop(name), times=len(sizes))
        for name in ("project keys", "project values", "features of keys", "sums over keys")
        if name in attend
    ]
    outs = sum(out for _, out in sizes.values())
    compose = linear(channels + 1, spec.decoder_channels, outs)  # matrix and bias
    return [
        *of_latents,
        *rows("outputs", attend | mlp(queries, channels, widening=1)),
        *rows("outputs", {k: linear(size, channels, out) for k, (size, out) in sizes.items()}),
        Row(part="outputs", operation="compose projections", once=compose, shared=True),
    ]


def _text_byte_array(spec: specs.MaskedLM) -> tuple[int, int]:
    return spec.max_length, spec.embedding_channels


def _text_inputs(spec: specs.MaskedLM) -> list[Row]:
    return []  # rows of a table are looked up and added


def _text_outputs(spec: specs.MaskedLM) -> list[Row]:
    length, channels = spec.max_length, spec.embedding_channels
    attend = attention(
        queries=(length, channels),
        keys=_features(spec),
        qk_channels=spec.query_qk_channels,
        v_channels=channels,
        **kernel_of(spec, spec.query_heads),
    )
    vocabulary = {"vocabulary": linear(length, channels, spec.vocabulary)}
    return rows("outputs", attend | mlp(length, channels, widening=1) | vocabulary)


def _text_class_outputs(spec: specs.TextClassifier) -> list[Row]:
    queries = 1 if spec.has_token else len(spec.heads)
    channels = spec.embedding_channels
    attend = attention(
        queries=(queries, channels),
        keys=_features(spec),
        qk_channels=spec.query_qk_channels,
        v_channels=channels,
        **kernel_of(spec, spec.query_heads),
    )
    hidden = len(spec.heads) * linear(1, channels, channels)
    heads = {"hidden": hidden, "classes": linear(1, channels, spec.classes)}
    return rows("outputs", attend | mlp(queries, channels, widening=1) | heads)


def _sentence_outputs(spec: specs.SentenceEncoder) -> list[Row]:
    """Of one text: the classes of a pair are not asked for."""
    if spec.pooling != "latent":
        return []
    channels = spec.embedding_channels
    attend = attention(
        queries=(1, channels),
        keys=_features(spec),
        qk_channels=spec.query_qk_channels,
        v_channels=channels,
        **kernel_of(spec, spec.query_heads),
    )
    return rows("outputs", attend | mlp(1, channels, widening=1))


# kind -> rows of the inputs, (M, C) of the byte array, rows of the outputs
_KINDS = {
    "clip_classifier": (_clip_inputs, _clip_byte_array, _class_outputs),
    "image_classifier": (_image_inputs, _image_byte_array, _class_outputs),
    "masked_lm": (_text_inputs, _text_byte_array, _text_outputs),
    "optical_flow": (_flow_inputs, _flow_byte_array, _flow_outputs),
    "sentence_encoder": (_text_inputs, _text_byte_array, _sentence_outputs),
    "text_classifier": (_text_inputs, _text_byte_array, _text_class_outputs),
    "video_autoencoder": (_video_inputs, _video_byte_array, _video_outputs),
}
