"""Finds sentences by their embeddings: nearest to a text, most similar pairs, clusters.

python -m perceiver.search EMBEDDINGS.npy LINES.txt --query="a text" --model=MODEL [--top=5]
python -m perceiver.search EMBEDDINGS.npy LINES.txt --pairs=10
python -m perceiver.search EMBEDDINGS.npy LINES.txt --clusters=20       (this many)
python -m perceiver.search EMBEDDINGS.npy LINES.txt --threshold=0.8     (as many as result)

EMBEDDINGS.npy is written by `python -m perceiver.embed MODEL LINES.txt`. Similarity is the cosine,
so the norms of the embeddings do not matter. The zero row of an empty line has a cosine of 0 with
everything and belongs to no cluster. Nearest sentences and clusters use scikit-learn (the extra
`search`).
"""

import argparse
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from perceiver import compile_cache
from perceiver.embed import read_lines
from perceiver.pretrained.embedding import embed, unit
from perceiver.pretrained.loading import load
from perceiver.pretrained.similarity import clusters, most_similar_pairs, nearest

Shown = tuple[str, dict[str, Any]]  # a line to read, the same for --json


def _show_nearest(embeddings, lines, options) -> Iterator[Shown]:
    model = load(options.model)
    neighbours = nearest(embeddings, embed(model, options.query), min(options.top, len(lines)))
    for query, places, cosines in zip(options.query, *neighbours, strict=True):
        rows = [_row(lines, *row) for row in zip(places.tolist(), cosines.tolist(), strict=True)]
        yield "\n".join([query, *map(_line, rows)]), {"query": query, "nearest": rows}


def _show_pairs(embeddings, lines, options) -> Iterator[Shown]:
    pairs, cosines = most_similar_pairs(embeddings, options.pairs)
    for pair, cosine in zip(pairs.tolist(), cosines.tolist(), strict=True):
        both = [{"line": place + 1, "text": lines[place]} for place in pair]
        shown = [f"  {row['line']}: {row['text']}" for row in both]
        yield "\n".join([f"{cosine:.4f}", *shown]), {"cosine": cosine, "pair": both}


def _show_clusters(embeddings, lines, options) -> Iterator[Shown]:
    labels = clusters(embeddings, count=options.clusters, threshold=options.threshold)
    for label in range(labels.max() + 1):
        places = np.flatnonzero(labels == label)
        rows = unit(np.asarray(embeddings[places], np.float32))
        cosines = rows @ unit(rows.mean(axis=0, keepdims=True))[0]
        central = np.argsort(-cosines, kind="stable")[: options.top]
        shown = [_line(_row(lines, int(places[i]), float(cosines[i]))) for i in central]
        told = {"cluster": label, "lines": (places + 1).tolist()}
        yield "\n".join([f"cluster {label}: {len(places):,} lines", *shown]), told


def _line(row: dict[str, Any]) -> str:
    return f"  {row['cosine']:.4f}  {row['line']}: {row['text']}"


def _row(lines: Sequence[str], place: int, cosine: float) -> dict[str, Any]:
    return {"line": place + 1, "cosine": cosine, "text": lines[place]}


def _read(file: pathlib.Path, lines: Sequence[str]) -> np.ndarray:
    """Returns the embeddings of lines; they stay on the disk until they are used."""
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}; create it with python -m perceiver.embed")
    embeddings = np.load(file, mmap_mode="r", allow_pickle=False)
    if embeddings.ndim != 2 or len(embeddings) != len(lines):
        raise ValueError(
            f"{file} has shape {list(embeddings.shape)}, which is not one row per line for "
            f"{len(lines):,} lines: give the text file that was embedded"
        )
    return embeddings


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m perceiver.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("embeddings", type=pathlib.Path, help="the .npy file")
    parser.add_argument("lines", help="the text file that was embedded")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--query", nargs="+", help="texts to find the nearest lines to")
    asked.add_argument("--pairs", type=int, help="number of most similar pairs of lines to print")
    asked.add_argument("--clusters", type=int, help="number of k-means clusters")
    asked.add_argument(
        "--threshold", type=float, help="cluster lines with at least this mean cosine"
    )
    parser.add_argument("--model", help="the model that made the embeddings, for --query")
    parser.add_argument("--top", type=int, default=5, help="lines to print per query or cluster")
    parser.add_argument("--json", action="store_true", help="print one JSON object per result")
    options = parser.parse_args(arguments)
    if options.query and not options.model:
        parser.error("--query needs --model, the model that made the embeddings")
    if options.top < 1:
        parser.error(f"--top must be at least 1, got {options.top}")
    compile_cache.enable_if_possible()
    try:
        lines = read_lines(options.lines)
        embeddings = _read(options.embeddings, lines)
        if options.query:
            show = _show_nearest
        else:
            show = _show_pairs if options.pairs is not None else _show_clusters
        for line, result in show(embeddings, lines, options):
            print(json.dumps(result, ensure_ascii=False) if options.json else line)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
