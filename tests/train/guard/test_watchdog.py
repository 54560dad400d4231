"""Time is a number that the test moves; one test runs the thread and ends a real process."""

import json
import pathlib
import subprocess
import sys
import time

import jax
import pytest

from train.guard import exit_codes, heartbeat, watchdog
from train.guard.watchdog import Watchdog

ROOT = pathlib.Path(__file__).parents[3]


class Bench:
    """A watchdog whose clock stands still until it is moved."""

    def __init__(self, folder, **options):
        self.now, self.said, self.codes = 1000.0, [], []
        self.words = folder / "stderr.txt"
        self._stream = self.words.open("w")
        options = {"slow_step": 10.0, "hang_seconds": 1800.0, "processes": 1} | options
        self.dog = Watchdog(
            folder,
            log=self.said.append,
            process=options.pop("process", 0),
            clock=lambda: self.now,
            leave=self.codes.append,
            stream=self._stream,
            **options,
        )

    def spend(self, name, step, seconds):
        self.dog.phase(name, step)
        self.now += seconds
        self.dog.check()

    def train(self, steps, data=0.1, step=0.9):
        for index in range(steps):
            self.spend("data", index, data)
            self.spend("step", index, step)

    @property
    def printed(self):
        self._stream.flush()
        return self.words.read_text()


@pytest.fixture
def bench(tmp_path):
    made = []

    def make(**options):
        made.append(Bench(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one._stream.close()


def test_a_slow_step_is_told_once(bench):
    b = bench()
    b.train(8)
    b.spend("data", 8, 2.0)
    b.dog.phase("step", 8)
    for _ in range(30):
        b.now += 1.0
        b.dog.check()
    assert b.said == [
        "step 9 has taken 11 s so far, the last 7 took 1 s (median): it has been in 'step' for 9 s"
    ]
    b.train(1)
    b.spend("data", 9, 60.0)
    assert len(b.said) == 2
    assert b.said[1].endswith("it has been in 'data' for 60 s")
    assert b.codes == []


def test_short_steps_evaluation_and_saving_are_not_slow(bench):
    b = bench()
    b.train(8, data=0.01, step=0.04)
    b.spend("data", 8, 4.0)  # 80 times the median, but nobody minds four seconds
    b.spend("step", 8, 0.05)
    b.spend("evaluate", 9, 600.0)
    b.spend("save", 9, 600.0)
    b.spend("data", 9, 0.01)
    assert b.said == []


def test_the_step_that_compiles_is_not_in_the_median(bench):
    b = bench()
    b.spend("data", 0, 1.0)
    b.spend("step", 0, 300.0)
    b.train(6, step=0.9)
    b.spend("data", 6, 12.0)
    assert len(b.said) == 1
    assert "the last 6 took 1 s" in b.said[0]


def test_off_means_off(bench):
    b = bench(slow_step=0.0, hang_seconds=0.0)
    b.train(8)
    b.spend("step", 8, 1e6)
    assert (b.said, b.codes, b.printed) == ([], [], "")


@pytest.mark.parametrize(
    ("phase", "steps_before", "limit"),
    [("data", 8, 1800), ("step", 8, 1800), ("step", 0, 7200), ("evaluate", 8, 7200)],
)
def test_a_hang_ends_the_process_with_names_and_stacks(bench, phase, steps_before, limit):
    b = bench(slow_step=0.0)
    b.train(steps_before)
    if phase == "step":
        b.spend("data", steps_before, 0.1)
    b.spend(phase, steps_before, limit - 1.0)
    assert (b.codes, b.printed) == ([], "")
    b.now += 2.0
    b.dog.check()
    assert b.codes == [exit_codes.HUNG]
    first, *stacks = b.printed.splitlines()
    assert first.startswith(f"no progress for {limit + 1} s in '{phase}' of step {steps_before}: ")
    assert "code 76; run the command again on all hosts: it starts from step 0" in first
    assert any("test_watchdog.py" in line for line in stacks)


def peer(process, phase, step, since):
    now = time.time()
    return heartbeat.Heartbeat(process, f"worker-{process}", 4242, phase, step, now - since, now)


def test_other_hosts_are_named_from_their_heartbeats(bench, tmp_path):
    b = bench(processes=3)
    for process, phase in ((1, "data"), (2, "step")):
        heartbeat.write(tmp_path / "hosts", peer(process, phase, 8, 93.0))
    b.train(8)
    b.spend("data", 8, 0.1)
    b.spend("step", 8, 93.0)
    (line,) = b.said
    assert line.endswith("host 1 (worker-1, process 4242) has been in 'data' of step 8 for 93 s")
    own = json.loads((tmp_path / "hosts" / "0.json").read_text())
    assert (own["phase"], own["step"], own["process"]) == ("step", 8, 0)
    assert own["time"] - own["since"] == pytest.approx(93.0)


def test_a_host_that_falls_silent_is_told_while_others_wait(bench, tmp_path):
    b = bench(slow_step=0.0, processes=2)
    gone = peer(1, "step", 8, 60.0)
    heartbeat.write(tmp_path / "hosts", gone)
    b.train(8)
    b.spend("step", 8, watchdog._ALONE + 1.0)
    assert b.printed == ""
    b.dog._born -= 100.0
    quiet = heartbeat.Heartbeat(**vars(gone) | {"time": gone.time - heartbeat.QUIET - 1})
    heartbeat.write(tmp_path / "hosts", quiet)
    for _ in range(3):
        b.now += watchdog._ALONE
        b.dog.check()
    (line,) = b.printed.splitlines()
    assert "host 1 (worker-1, process 4242) has been silent for" in line
    assert "run the command again on all hosts" in line


def test_an_error_of_the_runtime_names_the_lost_host_and_the_step_to_come(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "checkpoints" / "40").mkdir(parents=True)
    (tmp_path / "checkpoints" / "60.orbax-checkpoint-tmp").mkdir()
    options = {"slow_step": 10.0, "hang_seconds": 60.0, "log": print, "process": 0}
    heartbeat.write(tmp_path / "hosts", peer(1, "data", 41, 1.0))
    error = jax.errors.JaxRuntimeError("Gloo all-reduce failed: connection reset by peer")
    codes = []
    monkeypatch.setattr(watchdog, "_GRACE", 0.2)
    dog = Watchdog(tmp_path, processes=2, leave=codes.append, **options)

    def run():
        with dog:
            dog.phase("data", 41)
            dog.phase("step", 41)
            raise error

    with pytest.raises(jax.errors.JaxRuntimeError):
        run()
    line = capsys.readouterr().err.splitlines()[0]
    assert "in 'step' of step 41" in line
    end = time.monotonic() + 30
    while not codes and time.monotonic() < end:  # what follows in this process hangs
        time.sleep(0.01)
    assert codes == [1]
    last = capsys.readouterr().err
    assert "JaxRuntimeError: Gloo all-reduce failed" in last
    assert "this process ends now" in last
    assert "host 1 (worker-1, process 4242) has been in 'data' of step 41" in line
    assert line.endswith("run the command again on all hosts: it resumes at step 40")


def test_only_the_first_host_tells_of_others(bench):
    for phase, lines in (("step", 0), ("data", 1)):
        b = bench(process=1, processes=2)
        b.train(8)
        b.spend(phase, 8, 100.0)
        assert b.said == []
        assert b.printed.count("step 9 has taken 100 s") == lines


def test_a_folder_that_cannot_be_written_stops_nothing(bench, tmp_path):
    (tmp_path / "hosts").write_text("in the way")
    b = bench(processes=2)
    b.train(8)
    b.spend("step", 8, 100.0)
    assert b.said[0].endswith(": host 1 has written no heartbeat to the run's folder")


def test_one_process_writes_nothing_and_several_say_goodbye(tmp_path):
    options = {"slow_step": 10.0, "hang_seconds": 60.0, "log": print, "process": 0}
    with Watchdog(tmp_path, processes=1, **options) as dog:
        dog.phase("data", 0)
    assert list(tmp_path.iterdir()) == []
    with Watchdog(tmp_path, processes=2, **options) as dog:
        dog.phase("data", 5)
    assert heartbeat.read(tmp_path / "hosts", 1)[0].phase == "ended"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slow_step": 0.5, "hang_seconds": 0.0}, r"guard\.slow_step=0\.5"),
        ({"slow_step": 0.0, "hang_seconds": -1.0}, r"guard\.hang_seconds=-1\.0"),
    ],
)
def test_nonsense_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Watchdog(tmp_path, log=print, **options)


HANGING = """
import sys, threading
from train.guard.watchdog import Watchdog

with Watchdog(sys.argv[1], slow_step=10.0, hang_seconds=0.2, log=print) as dog:
    for step in range(2):
        dog.phase("data", step)
        dog.phase("step", step)
    threading.Event().wait()
"""


def test_a_process_that_hangs_ends_by_itself(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANGING, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == exit_codes.HUNG
    assert "in 'step' of step 1: it has been in 'step' for" in done.stderr
    assert 'File "<string>", line 9 in <module>' in done.stderr
