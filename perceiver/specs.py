"""Specs: what a model is, as a frozen value that survives JSON and is checked when it is made.

A spec is written as a flat dict with a "kind" (`perceiver.released.MODELS`, a config's `model`
section, an exported `config.json`); `parse` turns it into one of the dataclasses below. Counts of
0 mean "as the paper's rule says", given beside the field.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, ClassVar

from perceiver import attention
from perceiver.compute import OPERANDS, PATHS, Compute
from perceiver.inputs.image import POSITIONS, STEMS
from perceiver.model import Sharing
from perceiver.processor import REMAT

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """The part that all models share: latents, cross-attends, processors."""

    kind: ClassVar[str]

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
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    kernel: str = "auto"  # auto, or one of perceiver.attention.KERNELS
    operands: str = "float32"  # of matrix products: bfloat16 is faster, sums stay float32
    cross_path: str = "auto"  # of the encoders, one of compute.PATHS: see perceiver.cross_attention
    decode_path: str = "auto"  # the same of the decoder
    chunk: int = 0  # elements that a cross-attend handles at a time; 0: chosen for the platform
    remat: str = REMAT[0]  # what backward passes keep, see perceiver.processor: dots, layer, none
    dtype: str = "float32"  # compute dtype; parameters, softmax, norms stay float32

    def __post_init__(self):
        for field in dataclasses.fields(self):  # JSON and ml_collections give lists
            if isinstance(getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
            self._check_type(field)
        counts = ("latents", "latent_channels", "layers", "blocks", "cross_heads", "self_heads")
        for name in (*counts, "cross_widening", "self_widening"):
            self._require(getattr(self, name) > 0, name, "must be positive")
        for name in ("dropout_rate", "attention_dropout_rate"):
            self._require(0 <= getattr(self, name) < 1, name, "must lie in [0, 1)")
        self._choice("kernel", ("auto", *attention.KERNELS))
        self._choice("operands", OPERANDS)
        self._choice("cross_path", PATHS)
        self._choice("decode_path", PATHS)
        self._choice("remat", REMAT)
        self._choice("dtype", DTYPES)
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
    def sharing(self) -> Sharing:
        return Sharing(encoders=self.encoders, processors=self.processors)

    @property
    def compute(self) -> Compute:
        return Compute(
            kernel=self.kernel, operands=self.operands, path=self.cross_path, chunk=self.chunk
        )

    @property
    def decode_compute(self) -> Compute:
        return dataclasses.replace(self.compute, path=self.decode_path)

    def to_dict(self) -> dict[str, Any]:
        """Returns the flat dict that `parse` reads."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def _require(self, condition: bool, name: str, rule: str) -> None:
        if not condition:
            raise ValueError(f"{self.kind}: {name}={getattr(self, name)!r} {rule}")

    def _check_type(self, field: dataclasses.Field) -> None:
        value = getattr(self, field.name)
        kinds = {int: int, float: int | float, str: str, bool: bool}
        kind = kinds.get(field.type, tuple)
        fits = isinstance(value, kind) and (field.type is bool or not isinstance(value, bool))
        self._require(fits, field.name, f"must be of type {getattr(kind, '__name__', 'float')}")
        if field.type is int:
            self._require(value >= 0, field.name, "must not be negative")

    def _choice(self, name: str, choices: tuple[str, ...]) -> None:
        self._require(
            getattr(self, name) in choices, name, f"is unknown; choose one of {', '.join(choices)}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageClassifier(Backbone):
    """Images [B, H, W, C] -> logits [B, K]."""

    kind = "image_classifier"

    image_shape: tuple[int, int, int]  # H, W, C
    classes: int  # K
    stem: str = "pixels"  # pixels, conv1x1 (learned projection), conv (7x7, batch norm, max-pool)
    stem_channels: int = 64
    positions: str = "fourier"  # fourier, learned
    bands: int = 64  # Fourier: K frequencies per axis
    max_resolution: tuple[int, ...] = ()  # Fourier: (): the grid's own size
    position_channels: int = 256  # learned
    head: str = "query"  # query (Perceiver IO), mean (Perceiver)
    query_channels: int = 1024  # E
    query_heads: int = 1
    query_residual: bool = True

    def __post_init__(self):
        super().__post_init__()
        shape = self.image_shape
        self._require(
            len(shape) == 3 and min(shape) > 0, "image_shape", "must be (height, width, channels)"
        )
        self._require(self.classes > 1, "classes", "must be at least 2")
        sizes = ("stem_channels", "position_channels", "query_channels", "query_heads")
        for name in (*sizes, "bands"):
            self._require(getattr(self, name) > 0, name, "must be positive")
        self._require(
            self.latent_channels % self.query_heads == 0,
            "query_heads",
            f"must divide latent_channels={self.latent_channels}",
        )
        self._choice("stem", STEMS)
        self._choice("positions", POSITIONS)
        self._choice("head", ("query", "mean"))
        self._require(
            len(self.max_resolution) in (0, 2), "max_resolution", "must be (height, width) or ()"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLM(Backbone):
    """Token ids [B, M] -> logits [B, M, K]."""

    kind = "masked_lm"

    vocabulary: int = 262
    max_length: int = 2048  # M at most
    embedding_channels: int = 768  # of input and output queries
    embedding_scale: float = 1.0  # standard deviation at the start, as in the released models
    position_scale: float = 0.02  # the same of the input positions, which are added to it
    query_heads: int = 8
    query_qk_channels: int = 256
    query_residual: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("vocabulary", "max_length", "embedding_channels", "query_heads"):
            self._require(getattr(self, name) > 0, name, "must be positive")
        for name in ("embedding_scale", "position_scale"):
            self._require(getattr(self, name) > 0, name, "must be positive")
        for name in ("query_qk_channels", "embedding_channels"):
            self._require(
                getattr(self, name) % self.query_heads == 0,
                name,
                f"must be a multiple of {self.query_heads=}",
            )


KINDS: dict[str, type[Backbone]] = {cls.kind: cls for cls in (ImageClassifier, MaskedLM)}


def parse(spec: Mapping[str, Any] | Backbone) -> Backbone:
    """Returns the checked spec of a flat dict; errors name the field, its value and the remedy."""
    if isinstance(spec, Backbone):
        return spec
    if isinstance(spec, str):
        raise ValueError(f"a spec is a dict, not {spec!r}; did you mean released.MODELS[{spec!r}]?")
    fields = dict(spec)
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"a model's 'kind' must be one of {', '.join(KINDS)}, not {kind!r}")
    cls = KINDS[kind]
    known = {field.name: field for field in dataclasses.fields(cls)}
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(
                f"{kind} has no field {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    missing = [
        name for name, f in known.items() if f.default is dataclasses.MISSING and name not in fields
    ]
    if missing:
        raise ValueError(f"{kind} needs the fields {', '.join(missing)}")
    return cls(**fields)
