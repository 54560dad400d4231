"""Masked language models: texts in, completions out."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from perceiver import specs, tokenizer
from perceiver.runner import Runner
from perceiver.subwords import Subwords
from perceiver.use.items import listed

MARK = re.compile(r"\[MASK(?::(\d+))?\]")  # [MASK]: one byte; [MASK:9]: nine

_SHORTEST = 64  # bytes: texts are padded to this, or to the next power of two


@dataclasses.dataclass(frozen=True)
class Span:
    """A masked stretch and what the model puts there."""

    start: int  # in bytes
    stop: int
    text: str  # the most probable bytes; broken UTF-8 becomes U+FFFD
    probability: float  # of these bytes, given the rest: the product over the span
    candidates: tuple[
        tuple[tuple[str, float], ...], ...
    ]  # for each byte, the best and how probable


@dataclasses.dataclass(frozen=True)
class Filled:
    """A text whose masked bytes are filled in."""

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
    texts = listed(texts)
    encode = _encoder(usage)
    ids = [x if isinstance(x, np.ndarray) else encode(x) for x in texts]
    for i, row in enumerate(ids):
        if not 0 < len(row) <= spec.max_length:
            raise ValueError(
                f"text {i} has {len(row)} {_unit(usage)}, but the model reads 1 to "
                f"{spec.max_length}; cut it into windows"
            )
    longest = max(map(len, ids), default=0)
    length = min(max(_SHORTEST, 1 << (longest - 1).bit_length()), spec.max_length)
    tokens = np.full((len(ids), length), tokenizer.PAD, np.int32)
    for row, x in zip(tokens, ids, strict=True):
        row[: len(x)] = x
    mask = np.arange(length)[None] < np.array([[len(x)] for x in ids], int).reshape(-1, 1)
    return {"tokens": tokens, "input_mask": mask}


def _encoder(usage: dict[str, Any]):
    """Returns what makes token ids of a text."""
    if usage.get("tokenizer", "bytes") == "bytes":
        return tokenizer.encode
    return Subwords(usage["file"]).encode


def _unit(usage: dict[str, Any]) -> str:
    return "bytes" if usage.get("tokenizer", "bytes") == "bytes" else "subwords"


def fill_mask(
    run: Runner,
    texts: Sequence[str | bytes],
    *,
    spans: Sequence[Sequence[tuple[int, int]]] | None = None,
    top_k: int = 5,
) -> list[Filled]:
    """Fills in the masked bytes of texts, each independently of the others, as trained.

    Args:
      run: the model.
      texts: with marks [MASK] (one byte) or [MASK:9] (nine) in them; or whole, with spans.
      spans: for each text, which bytes to hide: (start, stop) pairs.
      top_k: how many candidates each byte gets.

    Raises:
      ValueError: nothing is masked, or a span lies outside of its text.
    """
    if not 1 <= top_k <= 256:
        raise ValueError(f"top_k must lie in 1..256, got {top_k}")
    if spans is None:
        masked = [_marked(text) for text in texts]
    else:
        if len(spans) != len(texts):
            raise ValueError(f"{len(spans)} lists of spans for {len(texts)} texts; give one each")
        masked = [_hide(text, some) for text, some in zip(texts, spans, strict=True)]
    logits = run.apply(prepare(run.model.spec, {}, [ids for ids, _ in masked]))
    return [_fill(ids, some, y, top_k) for (ids, some), y in zip(masked, logits, strict=True)]


def _marked(text: str | bytes) -> tuple[np.ndarray, list[tuple[int, int]]]:
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    parts, spans, size, end = [], [], 0, 0
    for mark in MARK.finditer(text):
        before = tokenizer.encode(text[end : mark.start()])
        count = int(mark[1] or 1)
        parts += [before, np.full(count, tokenizer.MASK, np.int32)]
        start = size + len(before)
        if not count:
            raise ValueError(f"{mark[0]} masks no byte; write [MASK:1] or more")
        if spans and spans[-1][1] == start:  # marks side by side are one span
            spans[-1] = spans[-1][0], start + count
        else:
            spans.append((start, start + count))
        size, end = start + count, mark.end()
    if not spans:
        raise ValueError(
            f"nothing is masked in {text[:80]!r}; write [MASK] for each byte, [MASK:9] for nine, "
            "or give spans"
        )
    return np.concatenate([*parts, tokenizer.encode(text[end:])]), spans


def _hide(text: str | bytes, spans: Sequence[tuple[int, int]]):
    ids = tokenizer.encode(text).copy()
    for start, stop in spans:
        if not 0 <= start < stop <= len(ids):
            raise ValueError(f"span {(start, stop)} lies outside of a text of {len(ids)} bytes")
        ids[start:stop] = tokenizer.MASK
    if not spans:
        raise ValueError(f"no span is given for {text[:80]!r}")
    return ids, list(spans)


def _fill(ids: np.ndarray, spans, logits: np.ndarray, top_k: int) -> Filled:
    # Only bytes are filled in: special tokens, and what else the vocabulary has, are left out.
    scores = logits[: len(ids), tokenizer.OFFSET : tokenizer.VOCABULARY].astype(np.float64)
    probabilities = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top_k]
    filled = ids.copy()
    for start, stop in spans:
        filled[start:stop] = order[start:stop, 0] + tokenizer.OFFSET
    found = []
    for start, stop in spans:
        best = np.take_along_axis(probabilities[start:stop], order[start:stop], axis=1)
        candidates = tuple(
            tuple((_byte(b), float(p)) for b, p in zip(bytes_, row, strict=True))
            for bytes_, row in zip(order[start:stop], best, strict=True)
        )
        text = tokenizer.decode(filled[start:stop])
        found.append(Span(start, stop, text, float(np.prod(best[:, 0])), candidates))
    return Filled(tokenizer.decode(filled), tuple(found))


def _byte(value: int) -> str:
    """Returns a byte as a character, or in hexadecimal if it is none by itself."""
    return chr(value) if value < 128 else f"\\x{value:02x}"
