"""Perceiver and Perceiver IO in JAX and Haiku.

Symbols, as in the papers:

  B batch    M inputs (elements of the byte array)    C channels of an input
             N latents                                D channels of a latent
             O outputs                                E channels of an output query
  H heads    K classes or vocabulary; also Fourier bands per axis

Masks are bool, True = real.
"""

from perceiver.byte_array import ByteArray, Segment
from perceiver.compute import Compute
from perceiver.cross_attention import Sequence
from perceiver.decoder import Decoder
from perceiver.encoder import Encoder
from perceiver.host_outputs import decode_to_host
from perceiver.loading import fresh, load
from perceiver.model import Perceiver, Sharing
from perceiver.models import Model, build
from perceiver.positions import Dense, LearnedTable, PerExample, SeparableFourier, fourier_features
from perceiver.pretrained import Pretrained
from perceiver.processor import Processor

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
    "decode_to_host",
    "fourier_features",
    "fresh",
    "load",
]
