"""What the tests of the launchers share: a stage of stub programs, and a stand-in for Python."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"

# The launchers' command lines, up to the words of `python -m train`.
SSH = (LAUNCH / "ssh.sh", "--hosts=me@one,two")
HOST = ("bash", LAUNCH / "host.sh", "--key=x")
POD = (LAUNCH / "tpu_pod.sh", "all", "--name=pod", "--zone=us-x")
POD_FULL = (*POD, "--type=v5litepod-64", "--runtime=v2-alpha-tpuv5-lite")
BATCH = ("bash", LAUNCH / "slurm.sbatch")
KUBERNETES = (
    *(sys.executable, LAUNCH / "jobset.py", "--name=run", "--image=registry/perceiver:1"),
    *("--accelerator=gpu", "--hosts=4", "--devices=8"),
)
WORDS = ("--config=configs/digits.py:fourier,smoke", "--workdir=gs://bucket/it's here")

# Runs what it is told on this machine, as if it were another one.
SSH_STUB = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift 2; done
echo "$1" >>"$STAGE/ssh"
shift
exec sh -c "$*"
"""

# Stands in for `python -m train`. The n-th start of process I reads what to do from the file
# `I.n` of the stage; without one it trains until it is told to stop.
PYTHON_STUB = """#!/bin/sh
process=${SLURM_PROCID:-0}
for word in "$@"; do
  case $word in --process=*) process=${word#*=} ;; esac
done
start=$(ls "$STAGE" | grep -c "^words.$process.")
for word in "$@"; do echo "$word"; done >"$STAGE/words.$process.$start"
trap 'echo TERM >"$STAGE/told.$process.$start"; exit 75' TERM
[ ! -f "$STAGE/$process.$start" ] || . "$STAGE/$process.$start"
while :; do sleep 0.05; done
"""


class Stage:
    """A folder with stub programs on PATH and the notes that they take."""

    def __init__(self, folder: pathlib.Path, checkout: pathlib.Path = ROOT):
        """`checkout` is where the launchers are started from."""
        self.folder, self.checkout = folder, checkout
        for name in ("bin", "tmp"):
            (folder / name).mkdir(parents=True)
        self.python = self.program("python", PYTHON_STUB)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SLURM_")
        } | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "STAGE": str(folder),
            "TMPDIR": str(folder / "tmp"),
        }

    def program(self, name: str, text: str) -> pathlib.Path:
        """Puts a program on PATH."""
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def play(self, process: int, start: int, commands: str) -> None:
        """Says what a start (from 0) of a process does, in shell."""
        (self.folder / f"{process}.{start}").write_text(commands + "\n")

    def notes(self, pattern: str) -> list[str]:
        """Names of the notes that were taken."""
        return sorted(path.name for path in self.folder.glob(pattern))

    def lines(self, name: str) -> list[str]:
        """The lines of a note; none where it was not taken."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def begin(self, *command: object, **environment: str) -> subprocess.Popen[str]:
        """Starts a launcher in a session of its own; end it by `end`."""
        return subprocess.Popen(
            [str(word).replace(str(LAUNCH), str(self.checkout / "launch")) for word in command],
            cwd=ROOT,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: object, timeout: float = 60.0, **environment: str):
        """Runs a launcher to its end: (code, output, errors)."""
        child = self.begin(*command, **environment)
        try:
            out, err = child.communicate(timeout=timeout)
        finally:
            end(child)
        return child.returncode, out, err

    def await_note(self, name: str, timeout: float = 60.0) -> None:
        """Waits until a note is there."""
        deadline = time.monotonic() + timeout
        while not (self.folder / name).exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no note {name} within {timeout} s, only {self.notes('*')}")
            time.sleep(0.02)


def end(child: subprocess.Popen) -> None:
    """Kills what a launcher left of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(timeout=10)
    for pipe in (child.stdout, child.stderr):
        pipe.close()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet collected does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
