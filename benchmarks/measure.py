"""What all benchmarks share: measuring time and memory, describing the machine, printing tables.

The speed of a machine drifts, so programs are compared round by round, and the median of the ratios
counts. CPU time (of all threads) depends less than wall time on what else the machine does.
Temporary memory is the compiler's account of what a program allocates beside arguments and results.
Processes of other frameworks import this module too, so JAX is imported only where it is used.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

MIB = 2**20
ROOT = pathlib.Path(__file__).resolve().parents[1]

Row = Mapping[str, Any]  # heading -> value of a table's row; None is an empty cell


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function with its arguments."""

    executable: Any
    arguments: tuple
    seconds: float  # of tracing and compiling
    temp_mib: float  # beside arguments and results

    def __call__(self) -> Any:
        """Runs it to the end."""
        import jax

        return jax.block_until_ready(self.executable(*self.arguments))


def compile_program(function: Callable, *arguments: Any, donate: tuple[int, ...] = ()) -> Program:
    """Compiles without the persistent cache, for arrays, or for shapes if it is not to be run."""
    import jax

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


@dataclasses.dataclass
class Timing:
    """What a program took in each round, in seconds."""

    walls: list[float] = dataclasses.field(default_factory=list)
    cpus: list[float] = dataclasses.field(default_factory=list)
    result: Any = None  # of the uncounted round; of a worker, its peak memory in MiB at the end

    @property
    def wall(self) -> float:
        return statistics.median(self.walls)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpus)


def race(runs: Mapping[Any, Any], rounds: int) -> dict[Any, Timing]:
    """Runs functions, or steps of `Worker`s, in turn: A B, B A, ..., after an uncounted round."""
    timings = {name: Timing(result=_took(run)[2]) for name, run in runs.items()}
    for number in range(rounds):
        for name in list(runs) if number % 2 == 0 else reversed(runs):
            wall, cpu, result = _took(runs[name])
            timings[name].walls.append(wall)
            timings[name].cpus.append(cpu)
            if isinstance(runs[name], Worker):
                timings[name].result = result
    return timings


def _took(run: Any) -> tuple[float, float, Any]:
    if isinstance(run, Worker):
        return run.step()
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Returns the median over rounds of numerator / denominator."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def relative_error(tree: Any, truth: Any) -> float:
    """Returns the largest, over leaves, of |x - truth| / |truth| (Euclidean).

    Left out are key biases: their true gradient is zero, and what a form returns for it is its own
    rounding noise.
    """
    import jax

    errors = []
    pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(truth), strict=True)
    for (path, leaf), true in pairs:
        if not re.search(r"/key'\]\['b'\]", jax.tree_util.keystr(path)):
            x, y = (np.asarray(a, np.float64) for a in (leaf, true))
            errors.append(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-30))
    return float(max(errors))


def compare(
    contenders: Mapping[str, tuple[Callable, tuple]],
    *,
    rounds: int,
    memory_gib: float = 8.0,
) -> dict[str, dict[str, Any]]:
    """Compiles functions that compute the same, runs them in turn, and returns a row for each.

    Ratios and errors refer to the first. What needs more temporary memory is not run.
    """
    programs = {name: compile_program(f, *x) for name, (f, x) in contenders.items()}
    limit = 1024 * memory_gib
    timings = race({name: p for name, p in programs.items() if p.temp_mib <= limit}, rounds)
    rows, first = {}, next(iter(programs))
    for name, program in programs.items():
        row: dict[str, Any] = {"temp MiB": program.temp_mib}
        if name in timings:
            row |= {"wall s": timings[name].wall, "CPU s": timings[name].cpu}
        if name != first:
            row["temp x"] = programs[first].temp_mib / max(program.temp_mib, 1e-3)
        if name != first and name in timings and first in timings:
            base, own = timings[first], timings[name]
            row["wall x"] = median_ratio(base.walls, own.walls)
            row["CPU x"] = median_ratio(base.cpus, own.cpus)
            row["rel. error"] = relative_error(own.result, base.result)
        rows[name] = row
    return rows


def peak_resident_mib() -> float:
    """Returns the most memory that this process has held.

    On Linux from VmHWM: `ru_maxrss` survives `exec`, so that a small child of a large process would
    report its parent's.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def draw_params(shapes: Any) -> Any:
    """Draws parameters, always the same: `{module path: {name: shape and dtype}}`.

    No bias is zero and no scale is one, as they would be at the start of training: then a form that
    forgets them would not show.
    """
    import jax.numpy as jnp

    rng = np.random.default_rng(2)

    def leaf(name, shape):
        x = rng.standard_normal(shape, np.float32)
        if name in ("w", "table"):
            return jnp.asarray(x / math.sqrt(shape[-2]))
        return jnp.asarray(0.2 * x + (name == "scale"))

    return {
        path: {name: leaf(name, x.shape) for name, x in arrays.items()}
        for path, arrays in shapes.items()
    }


def draw_batch(shapes: Mapping[str, Any], highest: int) -> dict[str, Any]:
    """Draws a batch, always the same: normal numbers, integers below `highest`, full masks."""
    import jax.numpy as jnp

    rng = np.random.default_rng(4)

    def leaf(x):
        if x.dtype == jnp.bool_:
            return jnp.ones(x.shape, bool)
        if jnp.issubdtype(x.dtype, jnp.integer):
            return jnp.asarray(rng.integers(highest, size=x.shape), x.dtype)
        return jnp.asarray(rng.standard_normal(x.shape, np.float32))

    return {name: leaf(x) for name, x in shapes.items()}


# Processes of their own.


def serve(step: Callable[[], Any] | None = None, **facts: Any) -> None:
    """Writes facts, then takes a step for each line of standard input and answers with its cost."""
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin if step else ():
        wall, cpu, _ = _took(step)
        print(json.dumps([wall, cpu, peak_resident_mib()]), flush=True)


class Worker:
    """`python -m module words`, a process that calls `serve`; a context manager.

    It is stopped while it waits, so that its threads neither work ahead nor spin.
    """

    def __init__(self, module: str, words: Sequence[str], **environment: str):
        self.name = module
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.facts = self._read()
        except RuntimeError:
            self.close()
            raise
        self.process.send_signal(signal.SIGSTOP)

    def step(self) -> tuple[float, float, float]:
        """Takes one step: (wall seconds, CPU seconds, peak memory of the process in MiB)."""
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found = self._read()
        self.process.send_signal(signal.SIGSTOP)
        return found

    def close(self) -> None:
        """Ends the process: it gets no more lines."""
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def _read(self) -> Any:
        for line in self.process.stdout:
            if line.startswith(("{", "[")):
                return json.loads(line)
        raise RuntimeError(f"{self.name} ended early with code {self.process.wait()}")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Printing.


def physical_cores(folder: pathlib.Path, processors: Sequence[int]) -> int | None:
    """Counts the cores behind logical processors (threads), as /sys/devices/system/cpu has them."""
    cores = set()
    for number in processors:
        topology = folder / f"cpu{number}" / "topology"
        try:
            ids = (topology / "physical_package_id").read_text(), (topology / "core_id").read_text()
        except OSError:
            return None
        cores.add(ids)
    return len(cores)


def cpu_model(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """Returns the processor's name, or what is known of it."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    ids = re.findall(r"^(cpu family|model|stepping)\s*: (\d+)$", text, re.MULTILINE)[:3]
    more = f" ({', '.join(f'{name} {value}' for name, value in ids)})" if ids else ""
    return (found[1] if found else platform.processor() or platform.machine()) + more


def machine() -> str:
    """Returns one line about what figures depend on beside the code."""
    import jax

    if hasattr(os, "sched_getaffinity"):
        processors = sorted(os.sched_getaffinity(0))
    else:
        processors = list(range(os.cpu_count() or 1))
    cores = physical_cores(pathlib.Path("/sys/devices/system/cpu"), processors)
    packages = ("jax", "jaxlib", "dm-haiku", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"Machine: {cpu_model()}, {cores or 'unknown number of'} physical cores as reported by the "
        f"system, {len(processors)} threads; device {jax.devices()[0].device_kind}; "
        f"{platform.system()} {platform.machine()}; Python {platform.python_version()}, {versions}"
    )


def parser(doc: str, *, rounds: int = 3, parts: Iterable[str] = ()) -> argparse.ArgumentParser:
    """Returns a parser with the options that all benchmarks have, and --parts, if there are any."""
    found = argparse.ArgumentParser(description=doc)
    found.formatter_class = argparse.RawDescriptionHelpFormatter
    found.add_argument("--smoke", action="store_true", help="tiny sizes; of parts the first")
    found.add_argument("--rounds", type=int, default=rounds, help="of which the median counts")
    if parts := list(parts):
        found.add_argument("--parts", nargs="+", choices=parts, default=parts, help="default: all")
    return found


def start(options: argparse.Namespace) -> None:
    """Prints what comes before the tables, and makes a smoke run short."""
    if options.smoke:
        options.rounds, options.parts = 1, getattr(options, "parts", [])[:1]
        print("A smoke run: the figures mean nothing.\n")
    print(machine(), end="\n\n", flush=True)


def table(rows: Sequence[Row]) -> str:
    """Returns a Markdown table with a column for each heading that some row fills."""
    heads = list(dict.fromkeys(head for row in rows for head in row))
    heads = [head for head in heads if any(row.get(head) is not None for row in rows)]
    lines = [heads, ["---"] * len(heads)]
    lines += [[_cell(row.get(head)) for head in heads] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if type(value) is int else str(value)


def show(rows: Sequence[Row]) -> None:
    """Prints a table."""
    print(table(rows), flush=True)
