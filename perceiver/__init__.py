"""Perceiver and Perceiver IO in JAX and Haiku.

Symbols, as in the papers:

  B batch    M inputs (elements of the byte array)    C channels of an input
             N latents                                D channels of a latent
             O outputs                                E channels of an output query
  H heads    K classes, or entries of the vocabulary

Masks are bool, True = real.
"""

if not __debug__:
    raise ImportError(
        "perceiver does not run under python -O (PYTHONOPTIMIZE): Haiku keeps track of its modules "
        "in assert statements, which -O leaves out; start Python without it"
    )

from perceiver import compile_cache
from perceiver.cross_attention import Sequence
from perceiver.kinds import released, specs
from perceiver.kinds.models import Model, build
from perceiver.model.decoder import Decoder
from perceiver.model.encoder import Encoder
from perceiver.model.host_outputs import decode_to_host
from perceiver.model.perceiver import Perceiver, Sharing
from perceiver.model.processor import Processor
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.positions import (
    Dense,
    LearnedTable,
    PerExample,
    SeparableFourier,
    fourier_features,
)
from perceiver.nn.products import forward_mode
from perceiver.pretrained.loading import fresh, load
from perceiver.pretrained.pretrained import Pretrained

__version__ = "0.1.0"

__all__ = [
    "ByteArray",
    "Compute",
    "Decoder",
    "Dense",
    "Encoder",
    "LearnedTable",
    "Model",
    "PerExample",
    "Perceiver",
    "Pretrained",
    "Processor",
    "Segment",
    "SeparableFourier",
    "Sequence",
    "Sharing",
    "build",
    "compile_cache",
    "decode_to_host",
    "forward_mode",
    "fourier_features",
    "fresh",
    "load",
    "released",
    "specs",
]
