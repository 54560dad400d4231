"""What a sentence encoder learns from docstrings: whose body belongs to which summary?

    python -m benchmarks.sentences [--seeds 0 1 2] [--folder runs/sentences] [--poolings]
        [--config.FIELD=VALUE ...] [--json FILE] [--smoke]

`configs/sentences.py:embedded` with several seeds. Each summary of the held-out files has to find
its own body among all held-out bodies, beside the same encoders before training, chance, and a
lexical baseline: scikit-learn's TF-IDF of words, fitted on the training texts, on the same cut
texts. `--poolings` trains with each pooling instead, the first seed alone. What is interrupted goes
on where it stopped.
"""

import argparse
import json
import pathlib
import statistics
import sys

import numpy as np
from train.broken import BrokenExamples

from configs import sentences
from data import stdlib_docstrings
from perceiver import coders, compile_cache, sequences, specs
from train import command, evaluate, loop, retrieval, trained

METRICS = ("recall_1", "recall_10", "mrr")

Scores = dict[str, float]
Results = dict[str, list[Scores]]  # who -> the scores of each seed


def train(config, folder: pathlib.Path) -> dict[str, Scores]:
    """Trains, and returns the scores of the encoder before and after."""
    config.placement = "single"
    loop.run(config, folder)
    model = trained.from_run(folder)
    experiment = model.experiment
    fresh = trained.Trained(experiment, experiment.placement.init(experiment.init_state), "fresh")
    return {"untrained": _score(fresh), "trained": _score(model)}


def _score(model: trained.Trained) -> Scores:
    found, _ = evaluate.assess(model, None, BrokenExamples(print))
    return {name: found[name] for name in METRICS}


def lexical(config) -> Scores:
    """Returns the scores of TF-IDF."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    length = specs.parse(config.model.to_dict()).text_length

    def cut(text: str) -> str:  # as the encoder sees it
        ids = sequences.join([coders.BYTES.encode(text)], length)
        return coders.BYTES.decode(ids)

    texts = {}
    for split in ("train", "validation"):
        pairs = stdlib_docstrings.read(split)
        texts[split] = [[cut(p.summary) for p in pairs], [cut(p.body) for p in pairs]]
    vectors = TfidfVectorizer().fit(texts["train"][0] + texts["train"][1])
    found = [np.asarray(vectors.transform(some).todense()) for some in texts["validation"]]
    return retrieval.summary(retrieval.ranks(*found))


def table(results: Results) -> str:
    """Returns a Markdown table in percent: means, and every seed's own number."""
    lines = ["| encoder | recall@1 | recall@10 | MRR |", "|---|---|---|---|"]
    for who, rows in results.items():
        cells = []
        for metric in METRICS:
            values = [100 * row[metric] for row in rows]
            each = f" ({', '.join(f'{x:.1f}' for x in values)})" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{each}")
        lines.append(f"| {who} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Trains, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/sentences"))
    parser.add_argument("--poolings", action="store_true", help="compare them, with one seed")
    parser.add_argument("--json", type=pathlib.Path, help="write the scores there too")
    parser.add_argument("--smoke", action="store_true", help="two steps of tiny models")
    options, changes = parser.parse_known_args()
    if unknown := [word for word in changes if not word.startswith("--config.")]:
        parser.error(f"unknown words: {' '.join(unknown)}")
    compile_cache.enable()  # one program for all seeds

    def config(**model):
        found = sentences.get_config("embedded,smoke" if options.smoke else "embedded")
        found.model.update(model)
        return command.read(changes, found)

    results: Results = {}
    if options.poolings:
        for pooling in specs.POOLINGS:
            chosen = config(pooling=pooling)
            chosen.seed = options.seeds[0]
            for who, scores in train(chosen, options.folder / pooling).items():
                results.setdefault(f"{pooling}, {who}", []).append(scores)
    else:
        for seed in options.seeds:
            chosen = config()
            chosen.seed = seed
            for who, scores in train(chosen, options.folder / f"seed-{seed}").items():
                results.setdefault(who, []).append(scores)
    held_out = len(stdlib_docstrings.read("validation"))
    results["TF-IDF of words"] = [lexical(config())]
    results["chance"] = [retrieval.chance(held_out)]
    print(table(results))
    version = ".".join(map(str, sys.version_info[:2]))
    training = len(stdlib_docstrings.read("train"))
    print(f"{training:,} pairs to train on, {held_out} held out (Python {version})")
    if options.json:
        options.json.write_text(json.dumps({"seeds": options.seeds, "scores": results}, indent=2))


if __name__ == "__main__":
    main()
