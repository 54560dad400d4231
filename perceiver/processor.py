"""Processor: a deep Transformer on the latents, compiled as two nested loops, never unrolled.

`layers` self-attends form a block; the block is applied `blocks` times with the same weights
(Perceiver IO ImageNet: 6 layers, 8 blocks). Parameters are stored stacked: every array below
`<name>/layers` has a leading axis of size `layers`.
"""

import dataclasses

import haiku as hk
import jax

from perceiver.attention import recompute
from perceiver.blocks import SelfAttend
from perceiver.compute import Compute

STACK = "layers"  # the path component that marks parameters with a leading layer axis

_POLICIES = {
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(*recompute.SAVED),
    ),
}
REMAT = ("none", "layer", "block", *_POLICIES)


def is_stacked(module_path: str) -> bool:
    """Whether the parameters of a module have a leading layer axis."""
    return STACK in module_path.split("/")


@dataclasses.dataclass(kw_only=True, eq=False)
class Processor(hk.Module):
    """Latents [B, N, D] -> latents [B, N, D]."""

    layers: int
    heads: int
    blocks: int = 1
    qk_channels: int | None = None  # None: as wide as the latents
    v_channels: int | None = None
    widening: int = 1
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    compute: Compute = Compute()
    remat: str = "none"  # the backward pass recomputes: nothing, layers, blocks, all but "dots"
    name: str | None = None

    def __call__(self, latents, *, mask=None, is_training=False) -> jax.Array:
        """[B, N, D] -> [B, N, D]; `mask` [B, N] hides elements (when latents are the inputs)."""
        channels = latents.shape[-1]

        def layer(x):
            return SelfAttend(
                heads=self.heads,
                qk_channels=self.qk_channels or channels,
                v_channels=self.v_channels or channels,
                widening=self.widening,
                dropout_rate=self.dropout_rate,
                attention_dropout_rate=self.attention_dropout_rate,
                compute=self.compute,
                name="self_attend",
            )(x, mask=mask, is_training=is_training)

        if self.remat not in REMAT:
            raise ValueError(f"unknown remat {self.remat!r}; known: {', '.join(REMAT)}")
        if self.remat == "layer" or self.remat in _POLICIES:
            layer = hk.remat(layer, policy=_POLICIES.get(self.remat))

        def block(x):
            return hk.layer_stack(self.layers, name=STACK)(layer)(x)

        if self.remat == "block":
            block = hk.remat(block)
        if (
            self.blocks == 1 or hk.running_init()
        ):  # the weights are the same in each block: initialise them once
            return block(latents)
        return hk.scan(lambda x, _: (block(x), None), latents, None, length=self.blocks)[0]
