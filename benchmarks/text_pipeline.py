"""Text from a large file to masked batches: CPU time, memory, and tokens a second beside a model's.

    python -m benchmarks.text_pipeline [--gigabytes 1] [--steps 20] [--folder DIR] [--smoke]

Writes JSON lines (.gz) of so many bytes, texts being stretches of the standard library; prepares
them by `python -m data.prepare text` in a process of its own; and draws batches of masked windows
from the store. Tokens a second of the pipeline are those of one core: by the CPU time of all its
threads. Those of the model, `configs/masked_lm.py:embedded`, are of a training step on all cores.
The ratio is between the two, at the model's own window.
"""

import argparse
import contextlib
import gzip
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from data.stdlib_text import read

import data
from benchmarks import measure
from configs import masked_lm
from data import masking
from train import experiment

_DOCUMENT = 20_000  # bytes, at most
_LINES = 2_000  # different ones
_WINDOWS = {128: 512, 2048: 64}  # seq_len: batch


def generate(path: pathlib.Path, size: int) -> int:
    """Writes JSON lines until their texts are `size` bytes; returns how many lines."""
    rng, text = np.random.default_rng(0), read("train")
    lines, lengths = [], []
    for _ in range(_LINES):
        length = int(rng.integers(100, _DOCUMENT))
        start = int(rng.integers(len(text) - length))
        stretch = text[start : start + length].tobytes().decode("utf-8", errors="ignore")
        lines.append(json.dumps({"text": stretch}).encode() + b"\n")
        lengths.append(len(stretch.encode()))
    written, count = 0, 0
    with gzip.open(path, "wb", compresslevel=1) as file:
        while written < size:
            file.write(lines[count % _LINES])
            written += lengths[count % _LINES]
            count += 1
    return count


def prepare(source: pathlib.Path, folder: pathlib.Path) -> tuple[float, float]:
    """Prepares the store `lines`; returns CPU seconds, and MiB at the peak."""
    command = [sys.executable, "-m", "data.prepare", "text", f"--input={source}", f"--out={folder}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "--name=lines"], cwd=measure.ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, after.ru_maxrss / 1024


def pipeline(folder: pathlib.Path, seq_len: int, hidden: str, batches: int) -> float:
    """Returns tokens for a second of CPU time."""
    config = masked_lm.get_config("embedded")
    section = config.data.copy_and_resolve_references()
    section.update(source="text:lines", data_dir=str(folder), documents=10)
    section.update(seq_len=seq_len, masking=hidden, batch_size=_WINDOWS[seq_len])
    drawn = data.load(section, "train", batch_size=section.batch_size, seed=0, train=True)
    with contextlib.closing(drawn):
        for _ in range(2 + batches // 10):  # threads start, pages of the file are read
            next(drawn)
        began = time.process_time()
        for _ in range(batches):
            next(drawn)
        return batches * section.batch_size * seq_len / (time.process_time() - began)


def model(steps: int, variant: str) -> float:
    """Returns tokens a second of training steps on all cores."""
    config = masked_lm.get_config(variant)
    run = experiment.make(config)
    state, train_step = run.placement.init(run.init_state), run.train_step()
    with contextlib.closing(run.batches("train", train=True)) as batches:
        batch = run.placement.put(next(batches))
    state, _ = jax.block_until_ready(train_step(state, batch))
    began = time.perf_counter()
    for _ in range(steps):
        state, _ = train_step(state, batch)
    jax.block_until_ready(state)
    tokens = run.config.data.batch_size * run.config.data.seq_len
    return steps * tokens / (time.perf_counter() - began)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=20, help="of the model")
    parser.add_argument("--folder", type=pathlib.Path, help="for the files, default: a temporary")
    parser.add_argument("--smoke", action="store_true", help="little of all: no figures")
    options = parser.parse_args()
    size = 3_000_000 if options.smoke else int(options.gigabytes * 1e9)
    steps, batches = (1, 3) if options.smoke else (options.steps, 200)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = pathlib.Path(name)
        count = generate(folder / "lines.jsonl.gz", size)
        seconds, peak = prepare(folder / "lines.jsonl.gz", folder)
        print(
            f"{count:,} lines with {size / 1e9:.3g} GB of text prepared in {seconds:.0f} s of CPU "
            f"time, {peak:.0f} MiB at the peak"
        )
        rates, own = {}, masked_lm.get_config("embedded").data
        for seq_len in _WINDOWS:
            for hidden in masking.MASKINGS:
                rates[seq_len, hidden] = pipeline(folder, seq_len, hidden, batches)
                print(
                    f"windows of {seq_len}, masking {hidden}: "
                    f"{rates[seq_len, hidden] / 1e6:.2f} million tokens/s of a core"
                )
    consumed = model(steps, "embedded,smoke" if options.smoke else "embedded")
    ratio = rates[own.seq_len, own.masking] / consumed
    print(
        f"`embedded` trains on {consumed:,.0f} tokens/s on all cores: one core gives {ratio:.0f}x"
    )


if __name__ == "__main__":
    main()
