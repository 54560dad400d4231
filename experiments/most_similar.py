"""The most similar of n sentences: by embeddings, and by a model that reads each pair.

    python -m experiments.most_similar [--sentences 10000] [--pairs 4000] [--both 100] [--smoke]

Sentence-BERT's claim (its introduction, on a V100): among 10,000 sentences BERT has 49,995,000
pairs to read, 65 hours; 10,000 embeddings take 5 seconds. Here a small Perceiver on bytes embeds
the sentences, and a text classifier with the same encoder reads "one[SEP]other". Of --both
sentences all pairs are read, so that the ratio is measured; of all sentences a sample of --pairs,
from which their time is extrapolated. Then, as in the paper's table 7, sentences a second in the
file's order and sorted by length; beside the Perceiver a Transformer of equal width and layers.

Weights are random: this measures time, not what is found. Sentences are lines of comments and
documentation in the standard library. Seconds are CPU time of all threads, without compiling.
"""

import itertools
import re
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import perceiver
from benchmarks import measure
from data.text import stdlib_text
from experiments import common
from perceiver.kinds import usage
from perceiver.pretrained import embedding, similarity
from perceiver.pretrained.pretrained import Pretrained
from perceiver.text import lengths, tokenizer

SIZES = {"max_length": 512, "layers": 4}
HEADS = dict.fromkeys(("self_heads", "cross_heads", "query_heads"), 4)
WIDTHS = ("embedding_channels", "latent_channels", "cross_qk_channels", "query_qk_channels")
PERCEIVER = SIZES | HEADS | dict.fromkeys(WIDTHS, 128) | {"latents": 32}
TRANSFORMER = SIZES | {"kind": "masked_lm_transformer", "channels": 128, "heads": 4}
BATCH = 64
_SENTENCE = re.compile(rb"[ \t]*(?:# )?([A-Z](?:[\w'\"`/*(),;:.-]+ ){3,}[\w'\"`/*()-]+[.,:]?)\s*")

Cut = Callable[[np.ndarray, int], list[np.ndarray]]  # (sizes, batch size) -> places of each batch


def sentences(count: int) -> list[str]:
    """Returns so many different lines of prose, from all over the standard library."""
    text = b"\n".join(stdlib_text.read(split).tobytes() for split in ("train", "validation"))
    matches = (_SENTENCE.fullmatch(line) for line in text.split(b"\n"))
    found = list(dict.fromkeys(match[1].decode() for match in matches if match))
    if len(found) < count:
        raise ValueError(f"--sentences={count}, but the standard library has {len(found)}")
    return [found[i * len(found) // count] for i in range(count)]


def drawn(spec: dict[str, Any]) -> Pretrained:
    """Returns a model of small random weights, without compiling what draws them."""
    model = perceiver.build(spec)
    shapes, state = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: 0.05 * jnp.asarray(rng.standard_normal(x.shape, np.float32)), shapes
    )
    return Pretrained(model, params, state, usage.default(model.spec), batch_size=BATCH)


def _timed(run: Callable, batches: list[np.ndarray], sizes: np.ndarray, reads: int) -> float:
    """Returns the seconds of all batches, after one for each program (which compiles)."""
    run(list({(len(b), lengths.padded(int(sizes[b].max()), reads)): b for b in batches}.values()))
    began = time.process_time()
    run(batches)
    return time.process_time() - began


def encode(model: Pretrained, texts: Sequence[str], cut: Cut) -> tuple[np.ndarray, float]:
    """Embeds texts: (embeddings, seconds)."""
    given, rows = embedding.fit(model, texts), [None] * len(texts)

    def run(batches):
        for places in batches:
            for place, row in zip(places, model.embed([texts[i] for i in places]), strict=True):
                rows[place] = row

    seconds = _timed(run, cut(given.sizes, BATCH), given.sizes, given.reads)
    return np.stack(rows), seconds


def cross_encode(model: Pretrained, pairs: Sequence[tuple[str, str]]) -> float:
    """Returns the seconds that scores of pairs take, sorted by length too."""
    sizes = np.array([len(tokenizer.encode(a)) + len(tokenizer.encode(b)) + 1 for a, b in pairs])

    def run(batches):
        for places in batches:
            model.classify([pairs[i] for i in places], top_k=1)

    return _timed(run, lengths.batches(sizes, BATCH), sizes, model.spec.text_length)


def by_embeddings(model: Pretrained, texts: Sequence[str]) -> tuple[float, float]:
    """Returns the seconds in all, and those of the search alone."""
    rows, seconds = encode(model, texts, lengths.batches)
    began = time.process_time()
    similarity.most_similar_pairs(rows, 1)
    search = time.process_time() - began
    return seconds + search, search


def in_order(sizes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Returns batches of texts as they come."""
    return lengths.in_order(np.arange(len(sizes)), batch_size)


def main() -> None:
    """Measures and prints both tables."""
    parser = common.parser(__doc__, "most_similar")
    parser.add_argument("--sentences", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=4_000, help="read of all, to extrapolate")
    parser.add_argument("--both", type=int, default=100, help="sentences done in full both ways")
    parser.add_argument("--rounds", type=int, default=3, help="of the two orders, in turn")
    options = parser.parse_args()
    small = {"latents": 4, "layers": 1} if options.smoke else {}
    if options.smoke:
        options.sentences, options.pairs, options.both = 64, 28, 8
    common.start(options)
    encoder = drawn({"kind": "masked_lm"} | PERCEIVER | small)
    reader = drawn(encoder.config | {"kind": "text_classifier", "classes": 1})
    texts, rng = sentences(options.sentences), np.random.default_rng(0)

    some = [texts[i] for i in rng.choice(len(texts), options.both, replace=False)]
    read = cross_encode(reader, list(itertools.combinations(some, 2)))
    embedded, search = by_embeddings(encoder, some)
    row = {"sentences": len(some), "pairs": len(some) * (len(some) - 1) // 2, "reading s": read}
    row |= {"embeddings s": embedded, "of that search s": search, "ratio": read / embedded}
    rows = [row | {"note": "measured"}]

    places = rng.integers(len(texts), size=(options.pairs, 2))
    seconds = cross_encode(reader, [(texts[i], texts[j]) for i, j in places])
    pairs = len(texts) * (len(texts) - 1) // 2
    read = pairs * seconds / options.pairs
    embedded, search = by_embeddings(encoder, texts)
    row = {"sentences": len(texts), "pairs": pairs, "reading s": read, "embeddings s": embedded}
    row |= {"of that search s": search, "ratio": read / embedded}
    rows.append(row | {"note": f"reading extrapolated from {options.pairs:,} pairs"})
    measure.show(rows)

    texts, rows = sentences(min(options.sentences, 1024)), []
    texts = [texts[i] for i in np.random.default_rng(1).permutation(len(texts))]
    transformer = drawn(TRANSFORMER | ({"layers": 1} if options.smoke else {}))
    for name, model in (("Perceiver", encoder), ("Transformer", transformer)):
        cuts = (in_order, lengths.batches)
        rounds = [[encode(model, texts, cut)[1] for cut in cuts] for _ in range(options.rounds)]
        plain, ordered = (len(texts) / statistics.median(x) for x in zip(*rounds, strict=True))
        row = {"model": name, "sentences/s in order": plain, "sorted by length": ordered}
        rows.append(row | {"ratio": statistics.median(a / b for a, b in rounds)})
    measure.show(rows)


if __name__ == "__main__":
    main()
