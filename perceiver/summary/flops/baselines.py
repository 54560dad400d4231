"""The count of each kind of baseline.

What a first layer makes of Fourier positions is counted once for a batch, as it is computed: see
`perceiver.nn.convolution.convolve_segment`.
"""

import collections
import math

from perceiver.kinds import specs
from perceiver.nn.resnet import EXPANSION
from perceiver.summary.flops.rows import Row, attention, kernel_of, linear, mlp, rows


def forward(spec: specs.Spec) -> tuple[Row, ...]:
    """Returns the operations of a forward pass, part by part."""
    return _KINDS[spec.kind][0](spec)


def byte_array(spec: specs.Spec) -> tuple[int, int]:
    """Returns M and C, the elements and channels of the byte array."""
    return _KINDS[spec.kind][1](spec)


def _transformer(spec: specs.Transformer) -> tuple[Row, ...]:
    elements, width = byte_array(spec)
    layer = attention(
        queries=(elements, width),
        keys=(elements, width),
        qk_channels=width,
        v_channels=width,
        **kernel_of(spec, spec.heads),
    ) | mlp(elements, width, spec.widening)
    inside = rows("processors", layer, times=spec.layers)
    if isinstance(spec, specs.MaskedLMTransformer):  # whose inputs are looked up and added
        head = {"transform": linear(elements, width, width)} if spec.head_transform else {}
        head["vocabulary"] = linear(elements, width, spec.vocabulary)
        return (*inside, *rows("outputs", head))
    side, patches = spec.patch_size, math.prod(spec.grid)
    return (
        *_first("inputs", f"project {side}x{side}", patches, side**2, spec, width),
        *inside,
        *rows("outputs", {"classes": linear(1, width, spec.classes)}),
    )


def _patches(spec: specs.ImageTransformer) -> tuple[int, int]:
    return math.prod(spec.grid) + spec.class_token, spec.channels


def _tokens(spec: specs.MaskedLMTransformer) -> tuple[int, int]:
    return spec.max_length, spec.channels


def _first(part: str, name: str, places: int, window: int, spec, out: int) -> list[Row]:
    """A convolution of pixels and of their positions, if they have any."""
    rows = [Row(part=part, operation=name, once=linear(places, window * spec.image_shape[2], out))]
    if spec.positions == "fourier":
        features = 2 * (2 * spec.bands + 1)  # two axes: raw position, sines, cosines
        once = linear(places, window * features, out)
        rows.append(Row(part=part, operation=f"{name}, of positions", once=once, shared=True))
    return rows


def _resnet(spec: specs.ImageResNet) -> tuple[Row, ...]:
    imagenet = spec.stem == "imagenet"
    side = 7 if imagenet else 3
    dims = tuple(-(-n // 2) if imagenet else n for n in spec.image_shape[:2])
    channels = spec.stage_channels[0]
    stem = _first("stem", f"convolution {side}x{side}", math.prod(dims), side**2, spec, channels)
    if imagenet:
        dims = _halved(dims)  # max-pool
    parts = list(stem)
    for stage, (blocks, width) in enumerate(
        zip(spec.blocks_per_stage, spec.stage_channels, strict=True)
    ):
        convolutions: collections.Counter = collections.Counter()
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            convolutions.update(_block(spec, channels, width, dims, stride))
            dims = _halved(dims) if stride == 2 else dims
            channels = width * (EXPANSION if spec.bottleneck else 1)
        parts += [
            Row(part=f"stage {stage}", operation=name, once=once, times=times)
            for (name, once), times in convolutions.items()
        ]
    return (*parts, *rows("outputs", {"classes": linear(1, channels, spec.classes)}))


def _block(spec, channels: int, width: int, dims, stride: int) -> list[tuple[str, int]]:
    """Returns (name, FLOPs) of the convolutions of a block on a grid."""
    out = width * (EXPANSION if spec.bottleneck else 1)
    places = math.prod(_halved(dims) if stride == 2 else dims)
    if spec.bottleneck:
        rows = [
            ("reduce 1x1", linear(math.prod(dims), channels, width)),
            ("spatial 3x3", linear(places, 9 * width, width)),
            ("expand 1x1", linear(places, width, out)),
        ]
    else:
        rows = [
            ("spatial 3x3", linear(places, 9 * channels, width)),
            ("second 3x3", linear(places, 9 * width, out)),
        ]
    if stride != 1 or channels != out:
        rows.append(("shortcut 1x1", linear(places, channels, out)))
    return rows


def _halved(dims: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // 2) for n in dims)


def _pixels(spec: specs.ImageResNet) -> tuple[int, int]:
    height, width, channels = spec.image_shape
    positions = 2 * (2 * spec.bands + 1) if spec.positions == "fourier" else 0
    return height * width, channels + positions


# kind -> rows of the whole, (M, C) of the byte array
_KINDS = {
    "image_transformer": (_transformer, _patches),
    "image_resnet": (_resnet, _pixels),
    "masked_lm_transformer": (_transformer, _tokens),
}
