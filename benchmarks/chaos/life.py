"""One life of a run: the processes of one start of `python -m train`, and their end."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.turns import ROOT

LIMIT = 420.0  # seconds in which a life must get where it should
HOST_TIMEOUT = 15  # seconds until the runtime calls a silent process dead
POLL = 0.05


@dataclasses.dataclass(frozen=True)
class Setup:
    """How a run is laid out."""

    name: str
    placement: str
    processes: int
    devices: int  # of each process
    steps: int  # of a run: processes that share cores by many devices are slow


SETUPS = (
    Setup("single", "single", 1, 1, 300),
    Setup("pmap", "pmap", 1, 8, 200),
    Setup("sharded", "sharded", 1, 8, 200),
    Setup("pmap-2x4", "pmap", 2, 4, 120),
    Setup("sharded-2x4", "sharded", 2, 4, 120),
)


class Life:
    """Started processes; a context manager whose end leaves none behind.

    Args:
      setup: how many there are.
      folder: of the run.
      words: of the command, beside `--workdir`, the placement and the addresses.
      cache: folder of compiled programs.
      suicide: (process, stage, number, delay) for `benchmarks.chaos.child`, of one of them.
    """

    def __init__(
        self,
        setup: Setup,
        folder: pathlib.Path,
        words: Sequence[str],
        cache: pathlib.Path,
        suicide: tuple[int, str, int, float] | None = None,
    ):
        self._folder = folder
        number = len(list(folder.parent.glob(f"{folder.name}.*.0.log")))
        self.logs = [
            folder.with_name(f"{folder.name}.{number:03}.{i}.log") for i in range(setup.processes)
        ]
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={setup.devices}",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "MPLBACKEND": "Agg",
            "PYTHONPATH": str(ROOT),
        }
        together = []
        if setup.processes > 1:
            address = f"127.0.0.1:{_free_port()}"
            together = [f"--coordinator={address}", f"--processes={setup.processes}"]
            together += [f"--host_timeout={HOST_TIMEOUT}"]
        self.processes = []
        for index, log in enumerate(self.logs):
            module = ["train"]
            if suicide is not None and suicide[0] == index:
                module = ["benchmarks.chaos.child", *map(str, suicide[1:])]
            # With SIGABRT they print their stacks.
            command = [
                sys.executable,
                "-X",
                "faulthandler",
                "-m",
                *module,
                *words,
                f"--workdir={folder}",
            ]
            command += [f"--config.placement={setup.placement}", *together]
            command += [f"--process={index}"] if together else []
            with log.open("wb") as out:
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
                )

    def __enter__(self) -> "Life":
        return self

    def __exit__(self, *exception: object) -> None:
        if isinstance(exception[1], TimeoutError):
            self.send(signal.SIGABRT, range(len(self.processes)))
            time.sleep(5.0)
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def codes(self) -> list[int | None]:
        """Exit codes; None of those that are running."""
        return [process.poll() for process in self.processes]

    def reach(self, step: int) -> bool:
        """Waits until the journal tells a step; False if the life ended before.

        Raises:
          TimeoutError: neither happened in time.
        """
        end = time.monotonic() + LIMIT
        while all(code is None for code in self.codes()):
            # The journal of an earlier life is cut when this one has started to train.
            if self.resumed() is not None and last_step(self._folder) >= step:
                return True
            if time.monotonic() > end:
                raise TimeoutError(f"step {step} was not reached within {LIMIT:.0f} s")
            time.sleep(POLL)
        return False

    def send(self, number: signal.Signals, targets: Sequence[int]) -> None:
        """Sends a signal to some of the processes."""
        for index in targets:
            if self.processes[index].poll() is None:
                self.processes[index].send_signal(number)

    def join(self, limit: float = LIMIT) -> list[int]:
        """Waits for the end of all; returns their exit codes.

        Raises:
          TimeoutError: they did not end in time.
        """
        end = time.monotonic() + limit
        for process in self.processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"a process did not end within {limit:.0f} s") from None
        return [process.returncode for process in self.processes]

    def first(self) -> float:
        """Waits until one process has ended; returns when that was seen (`time.monotonic`).

        Raises:
          TimeoutError: none has in time.
        """
        end = time.monotonic() + LIMIT
        while all(code is None for code in self.codes()):
            if time.monotonic() > end:
                raise TimeoutError(f"no process ended within {LIMIT:.0f} s")
            time.sleep(POLL)
        return time.monotonic()

    def resumed(self) -> int | None:
        """The step that this life went on from, 0 for a fresh one; None if it came not so far."""
        found = re.search(r"(?:resumed at step (\d+)|(fresh), seed)", self.text(0))
        return int(found[1] or 0) if found else None

    def text(self, process: int) -> str:
        """What a process has printed."""
        return self.logs[process].read_text(errors="replace")


def last_step(folder: pathlib.Path) -> int:
    """The step of the last whole line of a run's journal; 0 where there is none."""
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    steps = [json.loads(line)["step"] for line in lines[-1:]]
    return steps[0] if steps else 0


def saved_steps(folder: pathlib.Path) -> list[int]:
    """Steps of the complete checkpoints of a run, oldest first."""
    path = folder / "checkpoints"
    names = [x.name for x in path.iterdir()] if path.exists() else []
    return sorted(int(name) for name in names if name.isdecimal())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
