"""Processes that take turns: one works while the others wait, round after round.

Each has its own runtime, threads and memory, which one process could not keep apart. A machine's
speed drifts, so they are compared round by round. This module imports neither JAX nor PyTorch.
"""

import json
import pathlib
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]


def serve(step: Callable[[], Any], **facts: Any) -> None:
    """Takes a step for each line of standard input, and answers with what it took.

    Args:
      step: returns when all its work is done.
      **facts: said at once, as the first line.
    """
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        print(json.dumps(took | {"resident_mib": _peak_mib()}), flush=True)


def _peak_mib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


class Worker:
    """A process that serves; use it in a `with` statement."""

    def __init__(self, python: str, module: str, words: Sequence[str]):
        """Starts `python -m module words` at the project's root and waits until it is ready."""
        self.name = module
        self.process = subprocess.Popen(
            [python, "-m", module, *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.facts = self._read()
        except RuntimeError:
            self.close()
            raise

    def step(self) -> dict[str, float]:
        """Lets it take one step: {"wall_s", "cpu_s", "resident_mib"}, the last its peak so far."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended early with code {self.process.wait()}")
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process by giving it no more lines."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Stopped(Worker):
    """A worker that is stopped while it waits, with its buffers as full as it left them."""

    def __init__(self, python: str, module: str, words: Sequence[str]):
        super().__init__(python, module, words)
        self.process.send_signal(signal.SIGSTOP)

    def step(self) -> dict[str, float]:
        self.process.send_signal(signal.SIGCONT)
        try:
            return super().step()
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        super().close()
