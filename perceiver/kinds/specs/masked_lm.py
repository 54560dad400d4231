"""What a masked language model is."""

import dataclasses

from perceiver.kinds.specs.backbone import Backbone
from perceiver.nn.positions import STARTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLM(Backbone):
    """Token ids [B, M] -> logits [B, M, K]."""

    kind = "masked_lm"

    vocabulary: int = 262
    max_length: int = 2048  # M at most
    embedding_channels: int = 768  # of input and output queries
    embedding_scale: float = 1.0  # standard deviation at the start, as in the released models
    position_scale: float = 0.02  # the same of the input positions, which are added to it
    position_start: str = "normal"  # of positions and queries, see positions.LearnedTable
    query_heads: int = 8
    query_qk_channels: int = 256
    query_residual: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("vocabulary", "max_length", "embedding_channels", "query_heads"):
            self._require(getattr(self, name) > 0, name, "must be positive")
        for name in ("embedding_scale", "position_scale"):
            self._require(getattr(self, name) > 0, name, "must be positive")
        self._choice("position_start", STARTS)
        for name in ("query_qk_channels", "embedding_channels"):
            self._require(
                getattr(self, name) % self.query_heads == 0,
                name,
                f"must be a multiple of {self.query_heads=}",
            )
