"""From a file of weights to the first answer: seconds and memory, cold and with a compile cache.

    python -m benchmarks.first_answer [--smoke] [--json FILE]

A masked language model of the released size (201M parameters; random weights, as none of the
released files is needed for this) is written in each format. Each is then loaded in processes of
their own: one that is not counted, so that the file is in the system's own cache; one that compiles
and fills a compile cache; one that finds it. Reported are the seconds from the start of the process
(imports included) to the first filled-in text, those of the first call alone, and the most memory
that the process held, as a multiple of the weights.
"""

import time

started = time.perf_counter()  # before the imports, which count

import argparse  # noqa: E402
import json  # noqa: E402
import pathlib  # noqa: E402
import pickle  # noqa: E402
import tempfile  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402
from perceiver.weights.deepmind_names import rules  # noqa: E402

import perceiver  # noqa: E402
from benchmarks import measure  # noqa: E402
from perceiver import compile_cache, released  # noqa: E402
from perceiver.weights import formats, mapping, native  # noqa: E402

imported = time.perf_counter()

FORMATS = ("native", "huggingface", "deepmind")
SMOKE = {"layers": 2, "latents": 16, "latent_channels": 64, "cross_v_channels": 64}
TEXT = "This is an incomplete sentence where some words are[MASK:9]"


def write_models(folder: pathlib.Path, spec: dict) -> int:
    """Writes the model in all formats, and returns the bytes of its weights."""
    model = perceiver.build(spec)
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0))
    draw = np.random.default_rng(0)

    def leaf(name, shape):  # small weights, scales near one: finite after 26 layers
        x = draw.standard_normal(shape, np.float32) * np.float32(0.02)
        return x + 1 if name == "scale" else x

    params = {
        module: {name: leaf(name, x.shape) for name, x in leaves.items()}
        for module, leaves in shapes.items()
    }
    saved = native.Saved(model, params, {}, {"tokenizer": "bytes"})
    formats.save(folder / "native", saved)
    formats.save(folder / "huggingface", saved, to="huggingface")
    flat = mapping.translate_back(params, rules(model.spec))
    theirs = mapping.unflatten({key: np.ascontiguousarray(x) for key, x in flat.items()})
    (folder / "deepmind").write_bytes(pickle.dumps(theirs, protocol=4))
    return sum(x.nbytes for x in flat.values())


def answer(source: str, cache: str, spec: dict | None) -> dict:
    """Loads a model, fills in one text, and returns what that took, from the process's start."""
    compile_cache.enable(cache)
    given = {"spec": spec} if formats.detect(source) == "deepmind" and spec else {}
    began = time.perf_counter()
    model = perceiver.load(source, **given)
    loaded = time.perf_counter()
    filled = model.fill_mask(TEXT)
    done = time.perf_counter()
    return {
        "import_s": imported - started,
        "load_s": loaded - began,
        "call_s": done - loaded,
        "answer_s": done - started,
        "resident_mib": measure.peak_resident_mib(),
        "finite": bool(np.isfinite(filled.spans[0].probability)),
    }


def _uncounted(words: list[str]) -> list[str]:
    """Returns the words of a child with a compile cache of its own."""
    return [word.replace("cache-", "uncounted-cache-") for word in words]


def main() -> None:
    """Prints a line for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--smoke", action="store_true", help="a tiny model, to try the benchmark")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    spec = released.MODELS["masked-lm-bytes"] | (SMOKE if options.smoke else {})
    if options.child:
        source, cache = options.child
        print(json.dumps(answer(source, cache, spec if options.smoke else None)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        weights = write_models(root, spec) / measure.MIB
        print(f"{weights:,.0f} MiB of weights, {jax.devices()[0].device_kind}")
        for name in FORMATS:
            words = ["--child", str(root / name), str(root / f"cache-{name}")]
            words += ["--smoke"] if options.smoke else []
            measure.in_fresh_process("benchmarks.first_answer", *_uncounted(words))
            cold, warm = (
                measure.in_fresh_process("benchmarks.first_answer", *words) for _ in range(2)
            )
            ratio = cold["call_s"] / warm["call_s"]
            memory = warm["resident_mib"] / weights
            print(
                f"{name:12} first answer after {cold['answer_s']:.1f} s compiling, "
                f"{warm['answer_s']:.1f} s with the cache; of that the first call "
                f"{cold['call_s']:.2f} s and {warm['call_s']:.2f} s ({ratio:.1f}x), "
                f"loading {warm['load_s']:.1f} s; "
                f"peak memory {warm['resident_mib']:,.0f} MiB, {memory:.2f}x the weights "
                f"({cold['resident_mib'] / weights:.2f}x when compiling)"
            )
            found[name] = {"cold": cold, "warm": warm, "weights_mib": weights}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
