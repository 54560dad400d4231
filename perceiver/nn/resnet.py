"""A residual network (He et al. 2015): the convolutional baseline of Perceiver's tables 1 and 2.

Blocks are of the first form, an addition and then a ReLU. The stride of a bottleneck lies in its
3x3 convolution, as in most implementations since: ResNet-50 costs 4.1 billion multiply-adds for
224x224 pixels (8.2 GFLOP), not 3.8. The last norm of each block starts at zero, so that each block
starts as the identity (Goyal et al. 2017, section 5.1).
"""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.nn.byte_array import ByteArray
from perceiver.nn.convolution import Convolution, batch_norm, convolve_segment, max_pool

STEMS = ("imagenet", "small")
EXPANSION = 4  # channels that a bottleneck gives out / its width


@dataclasses.dataclass(kw_only=True, eq=False)
class ResNet(hk.Module):
    """A grid of pixels, with or without position features -> features of a smaller grid."""

    blocks_per_stage: tuple[int, ...]
    stage_channels: tuple[int, ...]
    bottleneck: bool = True
    stem: str = STEMS[0]
    name: str | None = None

    def __call__(
        self, byte_array: ByteArray, *, is_training: bool = False
    ) -> jax.Array:  # -> [B, N, D]
        (segment,) = byte_array.segments
        stem = Stem(channels=self.stage_channels[0], kind=self.stem, name="stem")
        x = stem(segment, is_training=is_training)
        stages = zip(self.blocks_per_stage, self.stage_channels, strict=True)
        for stage, (blocks, channels) in enumerate(stages):
            for index in range(blocks):
                block = Block(
                    channels=channels,
                    stride=2 if stage > 0 and index == 0 else 1,
                    bottleneck=self.bottleneck,
                    name=f"stage_{stage}_block_{index}",
                )
                x = block(x, is_training=is_training)
        return x.reshape(x.shape[0], -1, x.shape[-1])


@dataclasses.dataclass(kw_only=True, eq=False)
class Stem(hk.Module):
    """imagenet: 7x7 of stride 2, 3x3 max-pool of stride 2; small: 3x3, and every pixel stays."""

    channels: int
    kind: str
    name: str | None = None

    def __call__(self, segment, *, is_training) -> jax.Array:  # -> [B, h, w, channels]
        window, stride = (7, 2) if self.kind == "imagenet" else (3, 1)
        shape = (window, window, segment.channels, self.channels)
        init = hk.initializers.VarianceScaling(2.0, "fan_in", "truncated_normal")
        w = hk.get_parameter("w", shape, jnp.float32, init=init)
        x = jax.nn.relu(batch_norm(convolve_segment(segment, w, stride), is_training=is_training))
        if self.kind == "imagenet":
            x = max_pool(x)
        return x


@dataclasses.dataclass(kw_only=True, eq=False)
class Block(hk.Module):
    """Two or three convolutions beside a shortcut."""

    channels: int  # of the 3x3 convolutions
    stride: int
    bottleneck: bool
    name: str | None = None

    def __call__(self, x: jax.Array, *, is_training: bool) -> jax.Array:  # [B, H, W, C]
        def layer(y, channels, window, name, stride=1, scale_init=None):
            convolution = Convolution(
                channels=channels, window=window, stride=stride, scale_init=scale_init, name=name
            )
            return convolution(y, is_training=is_training)

        out = self.channels * (EXPANSION if self.bottleneck else 1)
        y = x
        if self.bottleneck:
            y = jax.nn.relu(layer(y, self.channels, 1, "reduce"))
        y = jax.nn.relu(layer(y, self.channels, 3, "spatial", self.stride))
        window, last = (1, "expand") if self.bottleneck else (3, "second")
        y = layer(y, out, window, last, scale_init=jnp.zeros)
        if self.stride != 1 or x.shape[-1] != out:
            x = layer(x, out, 1, "shortcut", self.stride)
        return jax.nn.relu(x + y)
