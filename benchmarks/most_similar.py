"""The most similar of n sentences: by embeddings, and by a model that reads each pair.

    python -m benchmarks.most_similar [--sentences 10000] [--pairs 4000] [--both 100]
        [--json FILE] [--smoke]

Sentence-BERT's claim (its introduction, on a V100): among 10,000 sentences BERT has 49,995,000
pairs to read, 65 hours; 10,000 embeddings take 5 seconds. Here a small Perceiver on bytes embeds
the sentences, and a text classifier with the same encoder reads "one[SEP]other". Of --both
sentences all pairs are read, so that the ratio is measured; of all sentences a sample of --pairs,
from which their time is extrapolated. Then, as in the paper's table 7, sentences a second in the
file's order and sorted by length; beside the Perceiver a Transformer of equal width and layers,
whose work grows with every token of padding, as BERT's does.

Weights are random: this measures time, not what is found. Sentences are lines of comments and
documentation in the standard library. Seconds are CPU time of all threads, which notices less of
what else the machine does than a clock; without what compiling takes.
"""

import argparse
import itertools
import json
import pathlib
import re
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import perceiver
from data import stdlib_text
from perceiver import embedding, lengths, similarity, tokenizer, usage
from perceiver.pretrained import Pretrained

SIZES = {"max_length": 512, "layers": 4}
ENCODER = SIZES | {
    "embedding_channels": 128,
    "latents": 32,
    "latent_channels": 128,
    "self_heads": 4,
    "cross_heads": 4,
    "query_heads": 4,
    "cross_qk_channels": 128,
    "query_qk_channels": 128,
}
SMOKE = {"latents": 4, "layers": 1}
TRANSFORMER = SIZES | {"kind": "masked_lm_transformer", "channels": 128, "heads": 4}
BATCH = 64
_SENTENCE = re.compile(rb"[ \t]*(?:# )?([A-Z](?:[\w'\"`/*(),;:.-]+ ){3,}[\w'\"`/*()-]+[.,:]?)\s*")


def sentences(count: int) -> list[str]:
    """Returns so many different lines of prose, from all over the standard library.

    Raises:
      ValueError: there are not so many.
    """
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
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: 0.05 * jnp.asarray(draw.standard_normal(x.shape, np.float32)), shapes
    )
    return Pretrained(model, params, state, usage.default(model.spec), batch_size=BATCH)


def encode(model: Pretrained, texts: Sequence[str], cut: Callable) -> tuple[np.ndarray, float]:
    """Embeds texts in the batches of `cut(sizes, batch size)`: (embeddings, seconds)."""
    given, rows = embedding.fit(model, texts), [None] * len(texts)

    def run(batches):
        for places in batches:
            for place, row in zip(places, model.embed([texts[i] for i in places]), strict=True):
                rows[place] = row

    batches = cut(given.sizes, BATCH)
    run(_one_of_each(batches, given.sizes, given.reads))  # compiles
    began = time.process_time()
    run(batches)
    return np.stack(rows), time.process_time() - began


def file_order(sizes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Returns batches of texts as they come."""
    return lengths.in_order(np.arange(len(sizes)), batch_size)


def cross_encode(model: Pretrained, pairs: Sequence[tuple[str, str]]) -> float:
    """Returns the seconds that scores of pairs take, sorted by length too."""
    sizes = np.array([len(tokenizer.encode(a)) + len(tokenizer.encode(b)) + 1 for a, b in pairs])
    batches = lengths.batches(sizes, BATCH)

    def run(some):
        for places in some:
            model.classify([pairs[i] for i in places], top_k=1)

    run(_one_of_each(batches, sizes, model.spec.text_length))  # compiles
    began = time.process_time()
    run(batches)
    return time.process_time() - began


def _one_of_each(batches, sizes: np.ndarray, reads: int) -> list[np.ndarray]:
    """Returns one batch for each program: padded length and number of texts."""
    kinds = {(len(b), lengths.padded(int(sizes[b].max()), reads)): b for b in batches}
    return list(kinds.values())


def compare(options: argparse.Namespace, encoder: Pretrained) -> dict[str, float]:
    """Measures both ways."""
    classifier = encoder.config | {"kind": "text_classifier", "classes": 1}
    reader = drawn(classifier)
    texts = sentences(options.sentences)
    rng = np.random.default_rng(0)
    found = {"sentences": len(texts), "pairs": len(texts) * (len(texts) - 1) // 2}

    some = [texts[i] for i in rng.choice(len(texts), options.both, replace=False)]
    found["both_pairs"] = len(some) * (len(some) - 1) // 2
    found["both_cross_s"] = cross_encode(reader, list(itertools.combinations(some, 2)))
    found["both_embed_s"] = _by_embeddings(encoder, some)[0]

    places = rng.integers(len(texts), size=(options.pairs, 2))
    sample = [(texts[i], texts[j]) for i, j in places]
    found["cross_pairs_per_s"] = len(sample) / cross_encode(reader, sample)
    found["cross_extrapolated_s"] = found["pairs"] / found["cross_pairs_per_s"]
    found["embed_s"], found["search_s"] = _by_embeddings(encoder, texts)
    return found


def _by_embeddings(model: Pretrained, texts: Sequence[str]) -> tuple[float, float]:
    """Returns the seconds in all, and those of the search alone."""
    rows, seconds = encode(model, texts, lengths.batches)
    began = time.process_time()
    similarity.most_similar_pairs(rows, 1)
    search = time.process_time() - began
    return seconds + search, search


def order(options: argparse.Namespace, encoder: Pretrained) -> dict[str, dict[str, float]]:
    """Returns sentences a second in both orders, and the median of the ratios of --rounds."""
    small = {"layers": 1} if options.smoke else {}
    transformer = drawn(TRANSFORMER | small)
    texts = sentences(min(options.sentences, 1024))
    texts = [texts[i] for i in np.random.default_rng(1).permutation(len(texts))]
    found = {}
    for name, model in (("Perceiver", encoder), ("Transformer", transformer)):
        sizes = embedding.fit(model, texts).sizes
        rounds = [
            [encode(model, texts, cut)[1] for cut in (file_order, lengths.batches)]
            for _ in range(options.rounds)
        ]
        in_order, ordered = (len(texts) / statistics.median(x) for x in zip(*rounds, strict=True))
        read = [
            lengths.cost(sizes, cut(sizes, BATCH), model.spec.max_length) / int(sizes.sum())
            for cut in (file_order, lengths.batches)
        ]
        found[name] = {
            "file_order_per_s": in_order,
            "sorted_per_s": ordered,
            "ratio": statistics.median(a / b for a, b in rounds),
            "file_order_tokens": read[0],
            "sorted_tokens": read[1],
        }
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sentences", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=4_000, help="read of all, to extrapolate")
    parser.add_argument("--both", type=int, default=100, help="sentences done in full both ways")
    parser.add_argument("--rounds", type=int, default=3, help="of the two orders, in turn")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    parser.add_argument("--smoke", action="store_true", help="tiny: the figures mean nothing")
    options = parser.parse_args()
    if options.smoke:
        options.sentences, options.pairs, options.both, options.rounds = 64, 28, 8, 1
    print(f"random weights, batches of {BATCH}, CPU seconds")
    small = SMOKE if options.smoke else {}
    encoder = drawn({"kind": "masked_lm"} | ENCODER | small)
    x = compare(options, encoder)
    ratio = x["both_cross_s"] / x["both_embed_s"]
    print(
        f"{options.both} sentences, both in full: {x['both_pairs']:,} pairs read in "
        f"{x['both_cross_s']:.2f} s, by embeddings {x['both_embed_s']:.3f} s: {ratio:,.0f}x\n"
        f"{x['sentences']:,} sentences by embeddings: {x['embed_s']:.1f} s, of that "
        f"{x['search_s']:.2f} s for the cosines of all {x['pairs']:,} pairs\n"
        f"  to read these pairs, extrapolated from {options.pairs:,} at "
        f"{x['cross_pairs_per_s']:,.0f} a second: {x['cross_extrapolated_s'] / 3600:.1f} h, "
        f"{x['cross_extrapolated_s'] / x['embed_s']:,.0f}x\n"
        "  the paper, BERT on a V100: 65 h and 5 s, 46,800x"
    )
    orders = order(options, encoder)
    for name, row in orders.items():
        print(
            f"{name}: {row['file_order_per_s']:,.0f} sentences/s in the file's order, "
            f"{row['sorted_per_s']:,.0f} sorted by length: {row['ratio']:.2f}x; tokens read for "
            f"each real one {row['file_order_tokens']:.2f} and {row['sorted_tokens']:.2f}"
        )
    print("  the paper, BERT on a CPU: 44 and 83, 1.9x")
    if options.json:
        rows = {"benchmark": "most_similar", "smoke": options.smoke} | x | {"orders": orders}
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
