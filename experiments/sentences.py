"""What a sentence encoder learns from docstrings: which body belongs to which summary?

    python -m experiments.sentences [--seeds 0 1 2] [--poolings] [--smoke]

`configs/sentences.py:embedded` with several seeds. Each summary of the held-out files has to find
its own body among all held-out bodies, beside the same encoders before training, chance, and a
lexical baseline: scikit-learn's TF-IDF of words, fitted on the training texts, on the same cut
texts. `--poolings` trains with each pooling instead, the first seed alone.
"""

import pathlib
import sys

import numpy as np

from benchmarks import measure
from configs import sentences
from data.labelled_text import stdlib_docstrings
from experiments import common
from perceiver import compile_cache
from perceiver.kinds import specs
from perceiver.text import coders, sequences
from train import evaluate, loop
from train.guard.broken_examples import BrokenExamples
from train.objective import retrieval
from train.run import trained_model

METRICS = {"recall_1": "recall@1", "recall_10": "recall@10", "mrr": "mean reciprocal rank"}

Scores = dict[str, float]
Results = dict[str, list[Scores]]  # who -> the scores of each seed


def train(config, folder: pathlib.Path) -> dict[str, Scores]:
    """Trains, and returns the scores of the encoder before and after."""
    config.placement = "single"
    loop.run(config, folder)
    model = trained_model.from_run(folder)
    experiment = model.experiment
    fresh = trained_model.TrainedModel(
        experiment, experiment.placement.init(experiment.init_state), "fresh"
    )
    return {"untrained": _score(fresh), "trained": _score(model)}


def _score(model: trained_model.TrainedModel) -> Scores:
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
    rows = []
    for who, found in results.items():
        cells = {t: common.each([100 * x[name] for x in found]) for name, t in METRICS.items()}
        rows.append({"encoder": who} | cells)
    return measure.table(rows)


def main() -> None:
    """Trains, and prints the table."""
    parser = common.parser(__doc__, "sentences", seeds=True)
    parser.add_argument("--poolings", action="store_true", help="compare them, with one seed")
    options = parser.parse_args()
    common.start(options)
    compile_cache.enable()  # one program for all seeds
    results: Results = {}
    poolings = specs.POOLINGS if options.poolings else (None,)
    for pooling in poolings:
        for seed in options.seeds[: 1 if pooling else None]:
            config = sentences.get_config("embedded,smoke" if options.smoke else "embedded")
            config.seed, config.model.pooling = seed, pooling or config.model.pooling
            name = pooling or f"seed-{seed}"
            for who, scores in train(config, options.folder / name).items():
                results.setdefault(f"{pooling}, {who}" if pooling else who, []).append(scores)
    training, held_out = (len(stdlib_docstrings.read(x)) for x in ("train", "validation"))
    results["TF-IDF of words"] = [lexical(config)]
    results["chance"] = [retrieval.chance(held_out)]
    print(table(results))
    print(f"{training:,} pairs to train on, {held_out:,} held out (Python {sys.version[:4]})")


if __name__ == "__main__":
    main()
