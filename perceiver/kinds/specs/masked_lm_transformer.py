"""What a masked language model without latents is."""

import dataclasses

from perceiver.kinds.specs.transformer import Transformer
from perceiver.nn.positions import STARTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLMTransformer(Transformer):
    """Token ids [B, M] -> logits [B, M, K], by a Transformer on all tokens, as BERT.

    Perceiver IO, table 1 and appendix F.3 compare with it on bytes and subwords. As they stand,
    layers are pre-norm, as the Perceiver's are, and the output shares the embedding with no layer
    in between. BERT (Devlin et al. 2018) has residual="post_norm" and the three fields below.
    """

    kind = "masked_lm_transformer"

    vocabulary: int = 262
    max_length: int = 2048  # M at most
    layers: int = 6
    channels: int = 512
    heads: int = 8
    embedding_scale: float = 0.02  # standard deviation at the start
    position_scale: float = 0.02  # the same of the input positions, which are added to it
    position_start: str = "normal"  # of the positions, see positions.LearnedTable
    embedding_norm: bool = False  # of embedding and positions, after their sum
    # Rows of a table of which each token gets one added: that of its input "token_types" [B, M],
    # or the first, as in a text by itself. 0: none
    token_types: int = 0
    head_transform: bool = False  # a layer, its activation and a norm, before the logits

    def __post_init__(self):
        super().__post_init__()
        self._positive("vocabulary", "max_length", "embedding_scale", "position_scale")
        self._choice("position_start", STARTS)
