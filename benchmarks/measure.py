"""Time as ratios within one process, temporary memory by the compiler's account, peak memory of a
fresh process.

A machine's speed drifts, so two programs are only compared round by round, one right after the
other, and of the ratios the median counts. CPU time (of all threads) is given beside wall time: it
hardly notices what else the machine does.
"""

import dataclasses
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

MIB = 2**20
ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function with its arguments."""

    executable: Any
    arguments: tuple
    seconds: float  # of tracing and compiling
    temp_mib: float  # what it allocates beside arguments and results, by XLA's account

    def __call__(self):
        """Runs it to the end."""
        return jax.block_until_ready(self.executable(*self.arguments))


def compile_program(function: Callable, *arguments, donate: tuple[int, ...] = ()) -> Program:
    """Compiles without any cache.

    Args:
      function: pure.
      *arguments: pytrees of arrays, or of `jax.ShapeDtypeStruct` if it is not to be run.
      donate: numbers of the arguments whose memory the results may take.
    """
    cache = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        began = time.perf_counter()
        executable = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
        seconds = time.perf_counter() - began
    finally:
        jax.config.update("jax_enable_compilation_cache", cache)
    temp = executable.memory_analysis().temp_size_in_bytes / MIB
    return Program(executable, arguments, seconds, temp)


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one program took in each round."""

    walls: tuple[float, ...]  # seconds
    cpus: tuple[float, ...]  # seconds of all threads
    result: Any  # of the first round

    @property
    def wall(self) -> float:
        return statistics.median(self.walls)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpus)


def race(programs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Runs all programs in turn, `rounds` times, in alternating order.

    The first round, which warms up, counts like the others: a median of three or more is blind to
    it.
    """
    walls, cpus = ({name: [] for name in programs} for _ in range(2))
    results: dict[str, Any] = {}
    for number in range(rounds):
        for name in list(programs) if number % 2 == 0 else reversed(programs):
            wall, cpu = time.perf_counter(), time.process_time()
            result = programs[name]()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
            results.setdefault(name, result)
            del result
    return {name: Timing(tuple(walls[name]), tuple(cpus[name]), results[name]) for name in programs}


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Returns the median over rounds of numerator / denominator."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def relative_error(tree: Any, truth: Any) -> float:
    """Returns the largest, over leaves, of |x - truth| / |truth| (Euclidean).

    Left out are key biases: their true gradient is zero, and what a form returns for it is its own
    rounding noise.
    """
    errors = []
    pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(truth), strict=True)
    for (path, leaf), true in pairs:
        if not re.search(r"/key'\]\['b'\]", jax.tree_util.keystr(path)):
            x, y = (np.asarray(a, np.float64) for a in (leaf, true))
            errors.append(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-30))
    return float(max(errors))


def peak_resident_mib() -> float:
    """Returns the most memory that this process has held at a time.

    On Linux from VmHWM: `ru_maxrss` survives `exec`, so that a small child of a large process
    would report its parent's.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def in_fresh_process(module: str, *words: str) -> dict[str, Any]:
    """Runs `python -m MODULE WORDS` and returns the JSON object on its last line.

    Raises:
      RuntimeError: it failed; with what it wrote.
    """
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr or done.stdout}")
    return json.loads(done.stdout.splitlines()[-1])
