"""Any number of texts -> embeddings, by any kind of model that reads texts."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from perceiver.kinds import specs
from perceiver.pretrained.pretrained import Pretrained
from perceiver.text import coders, lengths, sequences


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedTexts:
    """Texts as a model can read them."""

    texts: Sequence[str]  # none longer than was allowed
    sizes: np.ndarray  # int32 [n], tokens of each; 0: there is nothing to embed
    cut: int  # how many lost their end
    reads: int  # tokens that the model reads at most

    @property
    def full(self) -> np.ndarray:  # int [<= n]
        """The places of the texts that have tokens."""
        return np.flatnonzero(self.sizes)


def fit(model: Pretrained, texts: Sequence[str], max_length: int | None = None) -> EncodedTexts:
    """Counts the tokens of texts, and cuts those that are too long, after a whole character.

    Args:
      model: of a kind that reads texts.
      texts: any number.
      max_length: tokens that are kept; None: as many as the model reads.

    Raises:
      ValueError: a model of another kind, a max_length that it does not have, or no text with a
        token.
    """
    reads = text_length(model.spec)  # of another kind, raises
    coder = coders.of_usage(model.usage)
    reads -= len(coder.before) + len(coder.after)
    most = reads if max_length is None else max_length
    if not 1 <= most <= reads:
        raise ValueError(f"max_length={max_length}, but the model reads 1 to {reads} tokens")
    kept, sizes, cut = list(texts), np.zeros(len(texts), np.int32), 0
    for place, text in enumerate(texts):
        ids = coder.encode(text)
        if len(ids) > most:
            kept[place], ids = _cut(ids, most, coder)
            cut += 1
        sizes[place] = len(ids)
    if not sizes.any():
        raise ValueError(f"all {len(texts)} texts are empty: there is nothing to embed")
    return EncodedTexts(kept, sizes, cut, reads)


def _cut(ids: np.ndarray, most: int, coder: coders.Coder) -> tuple[str, np.ndarray]:
    """Returns the start of a text, and its ids."""
    bare = coder._replace(before=(), after=())
    for room in range(most, 0, -1):
        text = coder.decode(sequences.join([ids], room, bare))
        again = coder.encode(text)
        if len(again) <= most:  # it may have other, and more, subwords than it had in the whole
            break
    return text, again


def text_length(spec: specs.Spec) -> int:
    """Returns the tokens that a text may have; a kind that reads texts says so in its spec.

    Raises:
      ValueError: a kind that reads none.
    """
    reads = getattr(spec, "text_length", getattr(spec, "max_length", None))
    if reads is None:
        raise ValueError(f"a model of kind {spec.kind} does not read texts; give one that does")
    return reads


def batches(model: Pretrained, given: EncodedTexts) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (places [b], embeddings float32 [b, E]) of all texts with tokens, longest first."""
    for chosen in lengths.batches(given.sizes[given.full], model.batch_size):
        places = given.full[chosen]
        yield places, model.embed([given.texts[place] for place in places])


def embed(
    model: Pretrained, texts: Sequence[str], max_length: int | None = None
) -> np.ndarray:  # float32 [n, E]
    """Returns the embeddings of texts in their order; of a text without tokens it is zero.

    Arguments and errors are those of `fit`.
    """
    given, embeddings = fit(model, texts, max_length), None
    for places, rows in batches(model, given):
        if embeddings is None:
            embeddings = np.zeros((len(texts), rows.shape[1]), np.float32)
        embeddings[places] = rows
    return embeddings


def unit(rows: np.ndarray) -> np.ndarray:  # [n, E]
    """Returns rows of length 1; zero rows stay zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
