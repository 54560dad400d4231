r"""Linear probes as in SentEval: what a linear model can predict from frozen embeddings.

    python -m train.probe MODEL FILE --field=text --label_field=label
    python -m train.probe MODEL FILE --field=a --field=b --label_field=label --kind=pairs
    python -m train.probe MODEL FILE --field=a --field=b --label_field=score --kind=relatedness \
        [--test FILE | --folds 10] [--seed 0] [--json]

MODEL is anything that `perceiver.load` accepts, of a kind that reads texts. FILE is a .csv, .tsv or
.jsonl file, optionally with .gz, as `rows:FILE` in `data/labelled_text/rows.py`. Classes of texts
and of pairs are predicted by logistic regression, scores of pairs by ridge regression, see
`train/objective/linear_probe.py`; the features of a pair are (|u - v|, u * v). Results are for the
rows of --test, or from cross-validation with --folds. Accuracy is printed next to that of the most
frequent class, correlation next to that of the plain cosine. (SentEval predicts relatedness as
classes between whole numbers; here it is predicted as a number.)
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from data.labelled_text import rows, tables
from perceiver import compile_cache
from perceiver.pretrained import embedding
from perceiver.pretrained.loading import load
from perceiver.pretrained.pretrained import Pretrained
from train.objective import linear_probe
from train.objective.linear_probe import ProbeResult

KINDS = {"classification": 1, "pairs": 2, "relatedness": 2}  # fields that each takes


def probe(
    model: Pretrained,
    file: pathlib.Path,
    *,
    fields: Sequence[str],
    label_field: str,
    kind: str = "classification",
    test: pathlib.Path | None = None,
    folds: int = 10,
    seed: int = 0,
    broken_limit: int = 0,
) -> ProbeResult:
    """Embeds the rows of a file and probes them.

    Args:
      model: of a kind that reads texts.
      file: what to train on, and with no `test` file to judge by.
      fields: the column of a text, or the two of a pair.
      label_field: the column of the label.
      kind: one of KINDS.
      test: a file of rows to judge by.
      folds: without it, so many parts.
      seed: of all draws.
      broken_limit: rows of a file that may be unusable.

    Raises:
      FileNotFoundError, ValueError: of `rows.read_file`, `embedding.fit`, `linear_probe`; a test
        file with a class that is not in the other.
    """
    if kind not in KINDS or len(fields) != KINDS[kind]:
        wanted = ", ".join(f"{name} takes {count}" for name, count in KINDS.items())
        raise ValueError(f"kind={kind!r} with {len(fields)} fields: of fields, {wanted}")
    numbers = kind == "relatedness"
    files = [file] if test is None else [file, test]
    read = [
        rows.read_file(x, fields, label_field, regression=numbers, limit=broken_limit)
        for x in files
    ]
    labels = np.array([row.label for part in read for row in part])
    texts = [row.texts for part in read for row in part]
    embedded = _embed(model, texts)
    if test is None:
        parts = linear_probe.folds(labels, folds, classes=not numbers, seed=seed)
    else:
        parts = [(np.arange(len(read[0])), np.arange(len(read[0]), len(labels)))]
        unknown = set(labels[parts[0][1]]) - set(labels[parts[0][0]])
        if unknown and not numbers:
            raise ValueError(
                f"{test} has the class {str(min(unknown))!r}, which {file} does not have"
            )
    if kind == "classification":
        return linear_probe.classify(embedded[0], labels, parts, seed=seed)
    features = linear_probe.of_pairs(*embedded)
    if kind == "pairs":
        return linear_probe.classify(features, labels, parts, seed=seed)
    cosines = np.sum(embedding.unit(embedded[0]) * embedding.unit(embedded[1]), axis=1)
    return linear_probe.regress(features, labels.astype(np.float64), cosines, parts, seed=seed)


def _embed(model: Pretrained, texts: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
    """Returns [n, E] of each field; a text that comes again is embedded once."""
    places = {
        text: place
        for place, text in enumerate(dict.fromkeys(itertools.chain.from_iterable(texts)))
    }
    embeddings = embedding.embed(model, list(places))
    return [embeddings[[places[text] for text in column]] for column in zip(*texts, strict=True)]


def _shown(result: ProbeResult, folds: int) -> str:
    how = f"{folds} folds" if folds > 1 else "held out"
    lines = [f"{result.examples:,} rows, {how}"]
    for name, score in result.scores.items():
        spread = f" (deviation between folds {result.spread[name]:.4f})" if folds > 1 else ""
        lines.append(f"  {name} {score:.4f}{spread}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what a probe finds."""
    parser = argparse.ArgumentParser(
        prog="python -m train.probe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="run, model folder, weights file or released name")
    parser.add_argument(
        "file", type=pathlib.Path, help=f"{', '.join(tables.SUFFIXES)}, or these with .gz"
    )
    parser.add_argument("--field", action="append", help="column of the text; twice for a pair")
    parser.add_argument("--label_field", default="label")
    parser.add_argument("--kind", choices=tuple(KINDS), default="classification")
    parser.add_argument("--test", type=pathlib.Path, help="file of rows to evaluate on")
    parser.add_argument(
        "--folds",
        type=int,
        default=10,
        help="number of cross-validation folds, without --test (default 10)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=64, help="texts per batch (default 64)")
    parser.add_argument(
        "--broken_limit", type=int, default=0, help="number of unusable rows to tolerate"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    compile_cache.enable_if_possible()
    try:
        result = probe(
            load(options.model, batch_size=options.batch_size),
            options.file,
            fields=tuple(options.field or ("text",)),
            label_field=options.label_field,
            kind=options.kind,
            test=options.test,
            folds=options.folds,
            seed=options.seed,
            broken_limit=options.broken_limit,
        )
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    if options.json:
        print(json.dumps(dataclasses.asdict(result)))
    else:
        print(_shown(result, len(result.strengths)))


if __name__ == "__main__":
    main()
