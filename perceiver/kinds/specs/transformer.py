"""The part that the specs of all Transformers share."""

import dataclasses

from perceiver.kinds.specs.spec import Spec
from perceiver.model.processor import REMAT
from perceiver.nn.compute import OPERANDS, Compute
from perceiver.nn.layers import ACTIVATIONS, EPSILON
from perceiver.nn.residual import RESIDUALS, ResidualConnection, residual_connection


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transformer(Spec):
    """A baseline without latents: every element attends to all elements."""

    layers: int
    channels: int  # D, of an element
    heads: int
    widening: int = 4  # hidden / model width of the MLP
    activation: str = "gelu_tanh"
    residual: str = RESIDUALS[0]  # see perceiver.nn.residual: pre_norm, post_norm, deepnorm
    norm_learned: bool = (
        True  # whether self-attends' norms have parameters, see perceiver.nn.residual
    )
    norm_epsilon: float = EPSILON  # of all norms
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    kernel: str = "auto"  # auto, or one of perceiver.attention.KERNELS
    kernel_features: int = 256  # of an approximate kernel (favor_...): its random directions
    kernel_redraw: bool = True  # whether such a kernel draws them anew in each training step
    operands: str = "float32"  # of matrix products: bfloat16 is faster, sums stay float32
    remat: str = REMAT[0]  # what backward passes keep, see perceiver.model.processor

    def __post_init__(self):
        super().__post_init__()
        self._positive("layers", "channels", "heads", "widening", "norm_epsilon")
        self._rate("dropout_rate", "attention_dropout_rate")
        self._choice("activation", tuple(ACTIVATIONS))
        self._choice("residual", RESIDUALS)
        self._kernel()
        self._choice("operands", OPERANDS)
        self._choice("remat", REMAT)
        divides = self.channels % self.heads == 0
        self._require(divides, "channels", f"must be a multiple of heads={self.heads}")

    @property
    def compute(self) -> Compute:
        return Compute(
            kernel=self.kernel,
            operands=self.operands,
            features=self.kernel_features,
            redraw=self.kernel_redraw,
        )

    @property
    def residual_connection(self) -> ResidualConnection:
        """How the layers' branches join the stream."""
        return residual_connection(
            self.residual, self.layers, self.norm_epsilon, learned=self.norm_learned
        )

    @property
    def network(self) -> str:
        """What it is made of, in a line."""
        heads = f"{self.heads} head" + "s" * (self.heads > 1)
        layers = f"{self.layers} self-attends ({heads}, {self.residual})"
        return f"{layers} of {self.channels} channels on all elements"
