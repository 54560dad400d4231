"""Runs of one setup that are killed and started again, until so many kills have happened."""

import collections
import dataclasses
import itertools
import pathlib
import re
import signal
import time
from collections.abc import Callable

import numpy as np

from benchmarks.chaos.child import STAGES
from benchmarks.chaos.life import HOST_TIMEOUT, LIMIT, Life, Setup, last_step, saved_steps

SAVE_EVERY = 10
SURVIVOR_LIMIT = HOST_TIMEOUT + 120.0  # seconds that a process may outlive another
WORDS = (
    "--config=configs/digits.py:fourier,smoke",
    f"--config.train.save_every={SAVE_EVERY}",
    "--config.train.log_every=3",
    "--config.train.eval_every=50",
    "--config.model.layers=1",
    "--config.model.blocks=1",
    "--config.train.micro_batches=2",
    "--config.data.batch_size=16",
    "--config.model.dropout_rate=0.1",
    "--config.optim.ema_decay=0.9",
    "--config.optim.lr=3e-3",
)
# How JAX, and this project, tell that another process is gone.
FAREWELLS = re.compile(
    r"waits since|the runtime failed|tasks are unhealthy|coordination.service"
    r"|Gloo \S+ failed|gloo::"
)
# Gloo, by which CPUs talk, gives processes 30 s to come to their first meeting.
OVERLOADED = ("Gloo context initialization failed",)

_TERM, _KILL = signal.SIGTERM, signal.SIGKILL


@dataclasses.dataclass(frozen=True)
class Kill:
    """What happens to a life."""

    signal: signal.Signals
    moment: str  # "start-up", "training", or a stage of `child`
    all: bool = True  # of several processes: all, or one

    def __str__(self) -> str:
        moment = f"save {self.moment}" if self.moment in STAGES else self.moment
        return f"{self.signal.name}{'' if self.all else ' to one'}, {moment}"


# processes -> a round of kills, drawn in a new order each time
ROUNDS = {
    1: (
        *[Kill(_KILL, "training")] * 4,
        *[Kill(_KILL, stage) for stage in STAGES],
        *[Kill(_TERM, "training")] * 2,
        *[Kill(sign, "start-up") for sign in (_KILL, _TERM)],
    ),
    2: (
        *[Kill(_KILL, "training", all=False)] * 2,
        *[Kill(_KILL, "training")] * 2,
        *[Kill(_KILL, stage, all=False) for stage in STAGES],
        *[Kill(_TERM, "training", all=both) for both in (False, True)],
        Kill(_KILL, "start-up"),
    ),
}


class Trial:
    """All runs of one setup.

    Args:
      setup: how a run is laid out.
      folder: for the runs.
      rng: draws kills and moments.
      steps: of each run; a kill comes within a third of them, counted from a resume.
      compare: what differs between two complete runs.
      say: prints a line.
    """

    def __init__(
        self,
        setup: Setup,
        folder: pathlib.Path,
        rng: np.random.Generator,
        steps: int,
        compare: Callable[[pathlib.Path, pathlib.Path], list[str]],
        say: Callable[[str], None],
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.setup, self._folder, self._rng = setup, folder, rng
        self._steps, self._span = steps, steps // 3
        self._compare, self._print = compare, say
        self._queue: list[Kill] = []
        self._startup = 5.0  # seconds until a life trains
        self.kills: collections.Counter[Kill] = collections.Counter()
        self.runs = self.equal = self.restarts = 0
        self.overloaded = 0  # deaths that nobody wanted
        self.lost: list[int] = []  # steps to be made again, after each kill
        self.outlived: list[float] = []  # seconds that one process outlived another
        self.violations: list[str] = []

    def reference(self) -> None:
        """Makes the run that nobody disturbs.

        Raises:
          RuntimeError: it fails by itself.
        """
        began = time.monotonic()
        with self._start("reference") as life:
            life.reach(1)
            self._startup = time.monotonic() - began
            codes = life.join()
            if any(codes):
                raise RuntimeError(f"{self.setup.name}: undisturbed, {codes}\n{life.text(0)}")
        self._say("reference", f"undisturbed, {time.monotonic() - began:.0f} s")

    def disturb(self, kills: int) -> None:
        """Kills runs so often, and lets the last one come to its end."""
        while self.kills.total() < kills:
            name, newest = f"run{self.runs}", 0
            self.runs += 1
            for number in itertools.count():
                self.restarts += number > 0
                kill = self._draw() if self.kills.total() < kills else None
                is_complete, newest = self._live(name, newest, kill)
                if is_complete:
                    break
            differing = self._compare(self._folder / "reference", self._folder / name)
            self.equal += not differing
            for line in differing:
                self._blame(name, line)
            self._say(name, "complete, " + ("differs" if differing else "bit-equal"))

    def _live(self, name: str, expected: int, kill: Kill | None) -> tuple[bool, int]:
        """One life: (is the run complete, the newest checkpoint after it)."""
        folder, suicide = self._folder / name, None
        if kill and kill.moment in STAGES:
            # The first process writes checksums; any may die while arrays are written.
            who = self._rng.integers(self.setup.processes) if kill.moment == "begun" else 0
            number, delay = (
                self._rng.integers(1, max(2, self._span // SAVE_EVERY)),
                self._rng.uniform(0, 0.1),
            )
            suicide = (int(who), kill.moment, int(number), float(delay))
        codes = None
        try:
            with self._start(name, suicide) as life:
                self._strike(life, kill)
                first = life.first()
                left = kill is not None and kill.signal is _KILL and not kill.all
                codes = life.join(SURVIVOR_LIMIT if left else LIMIT)
                if left and any(codes):
                    self.outlived.append(time.monotonic() - first)
        except TimeoutError as error:
            texts = "\n---\n".join(path.read_text(errors="replace")[-6000:] for path in life.logs)
            self._blame(name, f"{kill}: {error}\n{texts}")
        resumed, newest = life.resumed(), max(saved_steps(folder), default=0)
        if resumed is not None and resumed != expected:
            self._blame(name, f"resumed at step {resumed}, the newest checkpoint was {expected}")
        if codes is None:
            return False, newest
        if any(codes):
            self._check(name, kill, codes, life)
        return not any(codes), newest

    def _strike(self, life: Life, kill: Kill | None) -> None:
        """Waits for the moment and sends the signal; a late one lets the run end in peace."""
        if kill is None or kill.moment in STAGES:
            return
        count = self.setup.processes
        targets = list(range(count)) if kill.all else [int(self._rng.integers(count))]
        if kill.moment == "start-up":
            time.sleep(self._rng.uniform(0, self._startup))
        else:
            target, pause = int(self._rng.integers(1, self._span)), self._rng.uniform(0, 0.2)
            if not life.reach(0):
                return
            target += life.resumed() or 0
            if target > self._steps - 10 or not life.reach(target):
                return
            time.sleep(pause)
        life.send(kill.signal, targets)

    def _check(self, name: str, kill: Kill | None, codes: list[int], life: Life) -> None:
        """What must hold after a death."""
        folder, texts = self._folder / name, [life.text(i) for i in range(len(codes))]
        last, newest = last_step(folder), max(saved_steps(folder), default=0)
        if any(words in text for words in OVERLOADED for text in texts):
            # Not ours, and no kill; but the run must go on from this as from any other death.
            self.overloaded += 1
            self._say(name, f"codes {codes}: this machine is too busy for Gloo's own timeouts")
            return
        if kill is None:
            self._blame(name, f"ended by itself with {codes}:\n{texts[0][-2000:]}")
            return
        self.kills[kill] += 1
        self.lost.append(max(0, last - newest))
        self._say(name, f"{kill}: codes {codes}, told step {last}, newest checkpoint {newest}")
        problem = None
        if kill.signal is _TERM:
            is_early = kill.moment == "start-up" and set(codes) <= {-_TERM, 75}
            announced = re.search(r"saved at step (\d+)", texts[0])
            if set(codes) != {75} and not is_early:
                problem = "75 is the code to end with"
            elif 75 in codes and (newest < last or announced is None):
                problem = f"step {last} is told, but not saved"
        elif -_KILL not in codes:
            problem = "it ended otherwise than by SIGKILL"
        elif not kill.all:
            others = [text for text, code in zip(texts, codes, strict=True) if code != -_KILL]
            if not all(codes):
                problem = "one process died, the other ended with 0"
            elif not any(FAREWELLS.search(text) for text in others):
                problem = "the process that is left does not say why it ends"
        if problem:
            self._blame(name, f"{kill}, codes {codes}: {problem}\n" + texts[-1][-2000:])

    def _start(self, name: str, suicide: tuple | None = None) -> Life:
        words = (*WORDS, f"--config.train.steps={self._steps}")
        return Life(self.setup, self._folder / name, words, self._folder / "xla", suicide)

    def _draw(self) -> Kill:
        if not self._queue:
            choices = ROUNDS[self.setup.processes]
            self._queue = [choices[i] for i in self._rng.permutation(len(choices))]
        return self._queue.pop()

    def _say(self, name: str, text: str) -> None:
        self._print(f"{self.setup.name} {name}: {text}")

    def _blame(self, name: str, text: str) -> None:
        self.violations.append(f"{self.setup.name} {name}: {text}")
        self._print(f"VIOLATION {self.violations[-1]}")
