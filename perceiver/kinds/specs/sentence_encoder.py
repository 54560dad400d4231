"""What an encoder of sentences is."""

import dataclasses

from perceiver.kinds.specs.masked_lm import MaskedLM

# What a text's features are made into one vector by (Sentence-BERT, section 3), and a query.
POOLINGS = ("mean", "max", "cls", "latent")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentenceEncoder(MaskedLM):
    """Token ids [B, M] -> an embedding [B, E]; of a pair two, and logits [B, K] (Sentence-BERT).

    Its encoder is that of the masked language model with the same fields. Pooled are the latents,
    or the tokens of a Transformer: their `mean`, their `max`, the first of them with [CLS] before
    the text (`cls`), or what one learned query reads of them by a cross-attend (`latent`), with the
    sizes of a masked language model's decoder.
    """

    kind = "sentence_encoder"

    pooling: str = POOLINGS[0]
    classes: int = 0  # K, of a pair, by softmax(W (u, v, |u - v|)); 0: embeddings alone

    def __post_init__(self):
        super().__post_init__()
        self._choice("pooling", POOLINGS)
        self._require(self.text_length > 0, "max_length", "leaves no room for a text")

    @property
    def has_token(self) -> bool:
        """Whether [CLS] stands before the text."""
        return self.pooling == "cls"

    @property
    def text_length(self) -> int:
        """The tokens that a text may have."""
        return self.max_length - self.has_token
