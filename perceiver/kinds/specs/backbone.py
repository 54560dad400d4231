"""The part that the specs of all Perceivers share, and of Transformers in their place."""

import dataclasses

from perceiver.kinds.specs.spec import Spec
from perceiver.model.perceiver import Sharing
from perceiver.model.processor import REMAT
from perceiver.nn.compute import OPERANDS, PATHS, Compute
from perceiver.nn.layers import ACTIVATIONS
from perceiver.nn.residual import RESIDUALS, ResidualConnection, residual_connection

# perceiver: latents read the inputs. transformer: the processors work on all inputs themselves,
# projected to `latent_channels`, with the same inputs, heads and layers; `latents` and the fields
# of cross-attends mean nothing then.
BODIES = ("perceiver", "transformer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone(Spec):
    """The part that all Perceivers share: latents, cross-attends, processors."""

    body: str = BODIES[0]  # one of BODIES, see there
    latents: int  # N
    latent_channels: int  # D
    layers: int  # self-attends of a block
    blocks: int = 1  # times that a processor applies its block, with the same weights
    encoders: tuple[int, ...] = (0,)  # weights of each stage's cross-attend, see model.Sharing
    processors: tuple[int, ...] = (0,)  # weights of each stage's processor
    cross_heads: int = 1
    cross_qk_channels: int = 0  # 0: as wide as the byte array
    cross_v_channels: int = 0  # 0: as wide as the byte array
    cross_widening: int = 1  # hidden / model width of the MLP
    self_heads: int = 8
    self_qk_channels: int = 0  # 0: as wide as the latents
    self_v_channels: int = 0  # 0: as wide as the latents
    self_widening: int = 1
    activation: str = "gelu_tanh"  # of all MLPs; gelu_erf: models that PyTorch trained
    residual: str = RESIDUALS[
        0
    ]  # of processors, see perceiver.nn.residual: pre_norm, deepnorm, ...
    norm_learned: bool = (
        True  # whether self-attends' norms have parameters, see perceiver.nn.residual
    )
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    kernel: str = "auto"  # auto, or one of perceiver.attention.KERNELS
    kernel_features: int = 256  # of an approximate kernel (favor_...): its random directions
    kernel_redraw: bool = True  # whether such a kernel draws them anew in each training step
    operands: str = "float32"  # of matrix products: bfloat16 is faster, sums stay float32
    cross_path: str = "auto"  # of the encoders, one of compute.PATHS: see perceiver.cross_attention
    decode_path: str = "auto"  # the same of the decoder
    chunk: int = 0  # elements that a cross-attend handles at a time; 0: chosen for the platform
    remat: str = REMAT[0]  # what backward passes keep, see perceiver.model.processor

    def __post_init__(self):
        super().__post_init__()
        self._positive("latents", "latent_channels", "layers", "blocks", "cross_heads")
        self._positive("self_heads", "cross_widening", "self_widening")
        self._rate("dropout_rate", "attention_dropout_rate")
        self._choice("body", BODIES)
        self._choice("activation", tuple(ACTIVATIONS))
        self._choice("residual", RESIDUALS)
        self._kernel()
        self._choice("operands", OPERANDS)
        self._choice("cross_path", PATHS)
        self._choice("decode_path", PATHS)
        self._choice("remat", REMAT)
        for part, width in (("self", self.latent_channels), ("cross", 0)):
            heads = getattr(self, f"{part}_heads")
            for name in (f"{part}_qk_channels", f"{part}_v_channels"):
                channels = getattr(self, name) or width
                self._require(
                    channels % heads == 0,
                    name,
                    f"({channels}) must be a multiple of {part}_heads={heads}",
                )
        _ = self.sharing

    @property
    def has_latents(self) -> bool:
        """Whether the inputs are read by the cross-attends of latents."""
        return self.body == "perceiver"

    @property
    def network(self) -> str:
        """What a body without latents is made of, in a line."""
        heads = f"{self.self_heads} head" + "s" * (self.self_heads > 1)
        layers = f"{self.depth} self-attends ({heads}, {self.residual})"
        own = self.layers * len(set(self.processors))
        shared = f", of which {own} have weights of their own" if own < self.depth else ""
        return f"{layers} of {self.latent_channels} channels on all elements{shared}"

    @property
    def depth(self) -> int:
        """The self-attends that are applied one after another."""
        return self.layers * self.blocks * len(self.processors)

    @property
    def residual_connection(self) -> ResidualConnection:
        """How the branches of self-attends join the stream."""
        return residual_connection(self.residual, self.depth, learned=self.norm_learned)

    @property
    def sharing(self) -> Sharing:
        return Sharing(encoders=self.encoders, processors=self.processors)

    @property
    def compute(self) -> Compute:
        return Compute(
            kernel=self.kernel,
            operands=self.operands,
            path=self.cross_path,
            chunk=self.chunk,
            features=self.kernel_features,
            redraw=self.kernel_redraw,
        )

    @property
    def decode_compute(self) -> Compute:
        return dataclasses.replace(self.compute, path=self.decode_path)

    def _divides(self, heads: str, *names: str) -> None:
        """Checks that widths of the queries' heads, 0 being as wide as the latents, divide."""
        for name in names:
            channels = getattr(self, name) or self.latent_channels
            rule = f"({channels}) must be a multiple of {heads}={getattr(self, heads)}"
            self._require(channels % getattr(self, heads) == 0, name, rule)
