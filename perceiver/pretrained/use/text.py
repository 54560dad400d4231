"""Masked language models: texts in, completions out."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from perceiver.kinds import specs
from perceiver.pretrained.runner import Runner
from perceiver.pretrained.use.items import listed
from perceiver.text import coders, lengths, tokenizer
from perceiver.text.coders import Coder

MARK = re.compile(r"\[MASK(?::(\d+))?\]")  # [MASK]: one token; [MASK:9]: nine


@dataclasses.dataclass(frozen=True)
class Span:
    """A masked stretch and what the model puts there."""

    start: int  # in tokens: bytes, or subwords
    stop: int
    text: str  # the most probable tokens; broken UTF-8 becomes U+FFFD
    probability: float  # of these tokens, given the rest: the product over the span
    # For each token, the best and how probable.
    candidates: tuple[tuple[tuple[str, float], ...], ...]


@dataclasses.dataclass(frozen=True)
class Filled:
    """A text whose masked tokens are filled in."""

    text: str
    spans: tuple[Span, ...]


def prepare(spec: specs.MaskedLM, usage: dict[str, Any], texts: Any) -> dict[str, np.ndarray]:
    """Returns {"tokens", "input_mask"} [B, length], padded to a power of two.

    Args:
      spec: of the model.
      usage: its tokenizer.
      texts: one or several: strings, UTF-8 bytes, or arrays of token ids [length].

    Raises:
      ValueError: a text is longer than the model's positions, or empty.
    """
    ids, unit, pad = listed(texts), "tokens", tokenizer.PAD
    if usage.get("tokenizer") != coders.EXTERNAL or not all(isinstance(x, np.ndarray) for x in ids):
        coder = coders.of_usage(usage)
        ids = [x if isinstance(x, np.ndarray) else _surrounded(coder, coder.encode(x)) for x in ids]
        unit, pad = coder.unit, coder.pad
    for i, row in enumerate(ids):
        if not 0 < len(row) <= spec.max_length:
            raise ValueError(
                f"text {i} has {len(row)} {unit}, but the model reads 1 to "
                f"{spec.max_length}; cut it into windows"
            )
    longest = max(map(len, ids), default=0)
    length = lengths.padded(longest, spec.max_length)
    tokens = np.full((len(ids), length), pad, np.int32)
    for row, x in zip(tokens, ids, strict=True):
        row[: len(x)] = x
    mask = np.arange(length)[None] < np.array([[len(x)] for x in ids], int).reshape(-1, 1)
    return {"tokens": tokens, "input_mask": mask}


def _surrounded(coder: Coder, ids: np.ndarray) -> np.ndarray:
    return np.concatenate([coder.before, ids, coder.after]).astype(np.int32)


def pool_tokens(
    features: np.ndarray,  # [B, M, D]
    mask: np.ndarray,  # bool [B, M]
    pool: Callable,
) -> np.ndarray:  # [B, D]
    """Pools the features of each text's own tokens: those of padding are no part of it.

    A token that the model puts before the text is real, and has a feature but no place in the mask.
    """
    before = features.shape[1] - mask.shape[1]
    rows = zip(features, np.pad(mask, ((0, 0), (before, 0)), constant_values=True), strict=True)
    return np.concatenate([pool(row[real][None], axis=1) for row, real in rows])


def fill_mask(
    run: Runner,
    texts: Sequence[str | bytes],
    usage: dict[str, Any],
    *,
    spans: Sequence[Sequence[tuple[int, int]]] | None = None,
    top_k: int = 5,
) -> list[Filled]:
    """Fills in the masked tokens of texts, each independently of the others, as trained.

    Args:
      run: the model.
      texts: with marks [MASK] (one token: a byte, or a subword) or [MASK:9] (nine) in them, what
        stands between marks being tokenised by itself; or whole, with spans.
      usage: of the model: its tokenizer.
      spans: for each text, which of its UTF-8 bytes to hide: (start, stop) pairs. A subword hides
        whole.
      top_k: how many candidates each token gets.

    Raises:
      ValueError: nothing is masked, a span lies outside of its text, or the tokeniser does not keep
        a text as it is, so that it has no place for a span.
    """
    coder = coders.of_usage(usage)
    if coder.mask < 0:
        raise ValueError("the model's tokeniser has no [MASK]")
    choices = np.flatnonzero(coder.sizes)  # no special tokens
    if not 1 <= top_k <= len(choices):
        raise ValueError(f"top_k must lie in 1..{len(choices)}, got {top_k}")
    if spans is None:
        masked = [_marked(text, coder, run.model.spec.max_length) for text in texts]
    else:
        if len(spans) != len(texts):
            raise ValueError(
                f"{len(spans)} lists of spans for {len(texts)} texts; give one per text"
            )
        masked = [_hide(text, some, coder) for text, some in zip(texts, spans, strict=True)]
    rows = [_surrounded(coder, ids) for ids, _ in masked]
    logits = run.apply(prepare(run.model.spec, usage, rows))
    first = len(coder.before)
    return [
        _fill(ids, some, y[first : first + len(ids), choices], choices, coder, top_k)
        for (ids, some), y in zip(masked, logits, strict=True)
    ]


def _marked(text: str | bytes, coder: Coder, most: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    parts, spans, size, end = [], [], 0, 0
    for mark in MARK.finditer(text):
        before = coder.encode(text[end : mark.start()])
        count = int(mark[1] or 1)
        start = size + len(before)
        if not 0 < count <= most:
            raise ValueError(f"{mark[0]} must mask 1 to {most} {coder.unit}, which the model reads")
        parts += [before, np.full(count, coder.mask, np.int32)]
        if spans and spans[-1][1] == start:  # marks side by side are one span
            spans[-1] = spans[-1][0], start + count
        else:
            spans.append((start, start + count))
        size, end = start + count, mark.end()
    if not spans:
        raise ValueError(
            f"nothing is masked in {text[:80]!r}; write [MASK] for each of its {coder.unit}, "
            "[MASK:9] for nine, or give spans"
        )
    return np.concatenate([*parts, coder.encode(text[end:])]), spans


def _hide(text: str | bytes, spans: Sequence[tuple[int, int]], coder: Coder):
    size = len(text.encode() if isinstance(text, str) else text)
    ids = coder.encode(text).copy()
    ends = np.cumsum(coder.sizes[ids])  # in bytes
    if len(ids) and ends[-1] != size:
        raise ValueError(
            f"the model's subwords do not reproduce {text[:80]!r} byte for byte, so spans of bytes "
            "cannot be located; use [MASK] instead"
        )
    hidden = []
    for start, stop in spans:
        if not 0 <= start < stop <= size:
            raise ValueError(f"span {(start, stop)} lies outside a text of {size} bytes")
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        ids[first : last + 1] = coder.mask
        hidden.append((int(first), int(last) + 1))
    if not spans:
        raise ValueError(f"no spans are given for {text[:80]!r}")
    return ids, hidden


def _fill(ids, spans, scores, choices, coder: Coder, top_k: int) -> Filled:
    """Args: ids [M] with [MASK], scores [M, K] of the ids `choices` [K]."""
    scores = scores.astype(np.float64)
    probabilities = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top_k]
    filled = ids.copy()
    for start, stop in spans:
        filled[start:stop] = choices[order[start:stop, 0]]
    results = []
    for start, stop in spans:
        best = np.take_along_axis(probabilities[start:stop], order[start:stop], axis=1)
        candidates = tuple(
            tuple((coder.written(i), float(p)) for i, p in zip(tokens, row, strict=True))
            for tokens, row in zip(choices[order[start:stop]], best, strict=True)
        )
        text = coder.decode(filled[start:stop])
        results.append(Span(start, stop, text, float(np.prod(best[:, 0])), candidates))
    return Filled(coder.decode(filled), tuple(results))
