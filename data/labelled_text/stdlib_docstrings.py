"""`stdlib_docstrings:FORM`: summaries and bodies of the standard library's own docstrings.

A small set of texts that belong together which every machine has. Taken are docstrings of one
summary line, a blank line and a body (PEP 257), of modules, classes and functions, read from their
files by `ast`, which runs none of them. Of the body, the object's name and the summary are taken
out, where they stand in it. A summary or body that occurs twice is taken once, so that each summary
has one right body. Files are held out as in `stdlib_text`. Under Python 3.11 there are about 2,700
pairs, one in eight of them held out.

  pairs      summary, body
  classes    the same, and as often a summary with the body of another object of the same file;
             label: other, same
  scores     as classes; label: 0 or 1
  triplets   summary, body, the body of another object of the same file

In training, half of the `pairs` are two stretches of the whole docstring instead, drawn anew in
each epoch, and the bodies of the rest begin anywhere: so few pairs are learnt by heart otherwise.
"""

import ast
import dataclasses
import functools
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data import transforms
from data.dataset import Dataset, DatasetInfo, Example
from data.labelled_text import labelled_text, sentence_pairs
from data.text import stdlib_text

FORMS = ("pairs", "classes", "scores", "triplets")
CLASSES = ("other", "same")
_SHORTEST = 20  # characters of a body
_STRETCH = (4, 20)  # words of a stretch, at least and at most

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclasses.dataclass(frozen=True)
class Pair:
    """What one docstring says, in short and at length."""

    path: str  # of the file, inside the library
    name: str  # of the object; "": the module itself
    summary: str
    body: str


@dataclasses.dataclass(frozen=True, eq=False)
class Docstrings:
    """Random access to the examples of a split, in one of the forms."""

    pairs: tuple[Pair, ...]
    others: tuple[int, ...]  # of each pair, another one, of the same file where there is one
    form: str
    seed: int = 0
    train: bool = False

    def __len__(self) -> int:
        return len(self.pairs) * (2 if self.form in ("classes", "scores") else 1)

    def example(self, index: int, epoch: int) -> Example:
        """Returns {"texts": strings, "label": number, if the form has labels}."""
        if self.form == "pairs" and self.train:
            rng = transforms.generator(self.seed, transforms.OFFSET, epoch, index)
            return {"texts": stretches(self.pairs[index], rng)}
        number, is_same = index, 1
        if self.form in ("classes", "scores"):
            number, is_same = index // 2, 1 - index % 2
        pair, other = self.pairs[number], self.pairs[self.others[number]]
        if self.form == "triplets":
            return {"texts": (pair.summary, pair.body, other.body)}
        texts = (pair.summary, pair.body if is_same else other.body)
        return {"texts": texts} | ({} if self.form == "pairs" else {"label": is_same})

    def name(self, index: int) -> str:
        """Returns the file and the object."""
        pair = self.pairs[index // (len(self) // len(self.pairs))]
        return f"{pair.path}: {pair.name or 'the module'}"


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split."""
    docstrings = dataclasses.replace(source(config, split), seed=seed, train=train)
    return sentence_pairs.dataset(docstrings, config, info(config))


def info(config: Any) -> DatasetInfo:
    """Returns the facts."""
    form = _form(config)
    return DatasetInfo(
        name=config.source,
        examples={split: len(source(config, split)) for split in ("train", "validation")},
        labels={"classes": CLASSES, "scores": labelled_text.SCORE}.get(form),
        texts=3 if form == "triplets" else 2,
    )


def source(config: Any, split: str) -> Docstrings:
    """Returns the examples of a split as texts."""
    pairs = read(split)
    return Docstrings(pairs, _others(pairs), _form(config))


@functools.cache
def read(split: str) -> tuple[Pair, ...]:
    """Returns the pairs of a split, in the order of the files.

    Raises:
      FileNotFoundError: this Python has no readable standard library.
    """
    return tuple(pair for pair in _all() if stdlib_text.split_of(pair.path) == split)


@functools.cache
def _all() -> tuple[Pair, ...]:
    summaries, bodies, pairs = set(), set(), []
    for path, content in stdlib_text.corpus(Path(sysconfig.get_path("stdlib"))).items():
        for pair in pairs_of(path, content) if path.endswith(".py") else ():
            if pair.summary not in summaries and pair.body not in bodies:
                pairs.append(pair)
            summaries.add(pair.summary)
            bodies.add(pair.body)
    return tuple(pairs)


def pairs_of(path: str, content: bytes) -> Iterator[Pair]:
    """Yields the pairs of a source file; none if Python cannot read it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library's odd escapes are its own affair
            tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, _DOCUMENTED):
            continue
        summary, _, body = (ast.get_docstring(node) or "").partition("\n\n")
        name = getattr(node, "name", "")  # a module has none
        body = _without(body, name, summary)
        if summary.strip() and "\n" not in summary and len(body) >= _SHORTEST:
            yield Pair(path, name, summary.strip(), body)


def stretches(pair: Pair, rng: np.random.Generator) -> tuple[str, str]:
    """Draws two texts that belong together out of a docstring, for training."""
    if rng.random() < 0.5:
        whole = f"{pair.summary} {pair.body}".split()
        return _stretch(whole, rng), _stretch(whole, rng)
    words = pair.body.split()
    start = int(rng.integers(max(1, len(words) - 2 * _STRETCH[0])))
    return pair.summary, " ".join(words[start:])


def _stretch(words: list[str], rng: np.random.Generator) -> str:
    size = int(rng.integers(_STRETCH[0], _STRETCH[1] + 1))
    start = int(rng.integers(max(1, len(words) - size + 1)))
    return " ".join(words[start : start + size])


def _without(body: str, name: str, summary: str) -> str:
    """Returns a body without what would give it away."""
    body = body.replace(summary, " ") if summary else body
    if name:
        body = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", " ", body)
    return body.strip()


def _others(pairs: tuple[Pair, ...]) -> tuple[int, ...]:
    """Returns the next pair of each one's file, the first after the last; else the next at all."""
    by_file: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        by_file.setdefault(pair.path, []).append(number)
    others = [(number + 1) % len(pairs) for number in range(len(pairs))]
    for numbers in by_file.values():
        if len(numbers) > 1:
            for number, other in zip(numbers, numbers[1:] + numbers[:1], strict=True):
                others[number] = other
    return tuple(others)


def _form(config: Any) -> str:
    form = config.source.partition(":")[2]
    if form not in FORMS:
        raise ValueError(f"data.source {config.source!r}: choose one of {', '.join(FORMS)}")
    return form
