"""Time and memory of attention from a thousand to 65,536 elements, exact and by random features."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from perceiver import attention

LENGTHS = (1024, 4096, 16384, 65536)
WORKS = ("forward", "forward and backward")
KERNELS = {"recompute": "exact", "favor_positive": "positive", "favor_relu": "ReLU"}
EXACT_TIMED = 16384  # beyond, the exact kernel is weighed, but not run: 17 GB of weights
FIELDS = {"cpu_s": "CPU time, s", "temp_mib": "temporary memory, MiB"}
CHANNELS, FEATURES, ROUNDS = 64, 256, 3


def rows(lengths: tuple[int, ...] = LENGTHS) -> list[dict]:
    """Compiles and times one head of 64 channels, batch 1, float32."""
    found = []
    for length in lengths:
        for work in WORKS:
            programs = {name: _program(name, work, length) for name in KERNELS}
            for name, program in programs.items():
                row = {"kernel": KERNELS[name], "work": work, "length": length}
                row["temp_mib"] = program.temp_mib
                if name != "recompute" or length <= EXACT_TIMED:
                    # each by itself: one that frees gigabytes would slow down the next
                    timing = measure.race({name: program}, ROUNDS)[name]
                    row |= {"cpu_s": timing.cpu, "wall_s": timing.wall}
                found.append(row)
    return found


def _program(name: str, work: str, length: int) -> measure.Program:
    rng = np.random.default_rng(0)
    shape = (1, length, 1, CHANNELS)
    arrays = [jnp.asarray(rng.standard_normal(shape, np.float32)) for _ in "qkv"]
    attend = attention.kernel(name, features=FEATURES)
    if work == WORKS[0]:
        return measure.compile_program(attend, *arrays)

    def gradient(q, k, v):
        return jax.value_and_grad(lambda *qkv: attend(*qkv).sum(), argnums=(0, 1, 2))(q, k, v)

    return measure.compile_program(gradient, *arrays)


def slope(points: list[tuple[float, float]]) -> float:
    """Returns the exponent of a power law through the points of the larger half of lengths."""
    x, y = np.log(np.array(points[len(points) // 2 - 1 :])).T
    return float(np.polyfit(x, y, 1)[0])


def points(rows: list[dict], kernel: str, work: str, field: str) -> list[tuple[float, float]]:
    """Returns (length, figure) of what was measured."""
    return [
        (row["length"], row[field])
        for row in rows
        if (row["kernel"], row["work"]) == (kernel, work) and field in row
    ]


def table(rows: list[dict]) -> str:
    """Returns a Markdown table: figures at all lengths, and the fitted exponent."""
    lengths = sorted({row["length"] for row in rows})
    heads = " | ".join(f"{length:,}" for length in lengths)
    lines = [f"| kernel | work | figure | {heads} | exponent |"]
    lines.append("|---|---|---|" + "---|" * (len(lengths) + 1))
    for kernel in KERNELS.values():
        for work in WORKS:
            for field, name in FIELDS.items():
                found = points(rows, kernel, work, field)
                by_length = dict(found)
                cells = [f"{by_length[n]:.3g}" if n in by_length else "" for n in lengths]
                cells.append(f"{slope(found):.2f}")
                lines.append(f"| {kernel} | {work} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
