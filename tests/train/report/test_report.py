import io
import re
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from train.report import metrics_log
from train.report.report import RunReport


class Clock:
    """Seconds that pass only when told to."""

    now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def screen(self) -> list[str]:
        """What stands on the screen: a carriage return writes over the line from its start."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            lines.append(shown.rstrip())
        return lines


@pytest.fixture
def clock():
    return Clock()


def make(tmp_path, clock, stream=None, **changes) -> RunReport:
    stream = io.StringIO() if stream is None else stream
    fixed = {"batch_size": 32, "clock": clock, "stream": stream, "memory": dict}
    return RunReport(tmp_path, 100, **(fixed | changes))


def events(folder) -> list[Event]:
    """All TensorBoard events of a folder, in order; the records' checksums are not looked at."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def scalars(folder) -> list[tuple[int, str, float]]:
    return [(e.step, v.tag, v.simple_value) for e in events(folder) for v in e.summary.value]


def test_every_outlet_tells_the_same_story(tmp_path, clock):
    stream = io.StringIO()
    with make(tmp_path, clock, stream) as report:
        with report.compiling():
            clock.now += 8.25
        with report.waiting():
            clock.now += 1.125
        clock.now += 3.375
        report.write(10, {"loss": np.float32(0.5), "lr": 2e-3})
        report.write(10, {"accuracy": 0.8125}, prefix="validation")
    assert metrics_log.read(tmp_path / "metrics.jsonl") == [
        {
            "step": 10,
            "loss": 0.5,
            "lr": 2e-3,
            "steps_per_second": 2.0,
            "examples_per_second": 64.0,
            "step_seconds": 0.375,
            "data_wait": 0.25,
        },
        {"step": 10, "validation/accuracy": 0.8125},
    ]
    assert stream.getvalue().splitlines() == [
        "compiled in 8.2 s",
        "step  10/100  loss 0.5  lr 0.002  2 steps/s  64 examples/s  data 25 %  ETA 0:45",
        "step  10/100  validation:  accuracy 0.8125",
    ]
    assert scalars(tmp_path) == [
        (10, "loss", 0.5),
        (10, "lr", pytest.approx(2e-3)),
        (10, "steps_per_second", 2.0),
        (10, "examples_per_second", 64.0),
        (10, "step_seconds", 0.375),
        (10, "data_wait", 0.25),
        (10, "validation/accuracy", 0.8125),
    ]


def test_utilisation_and_memory_are_told_with_training_alone(tmp_path, clock):
    stream = io.StringIO()
    known = {"flops_per_example": 3e12, "devices": 8, "peak_flops": 32e12}
    memory = {"host_memory_gib": 1.5, "device_memory_gib": 40.25}
    with make(tmp_path, clock, stream, memory=lambda: memory, **known) as report:
        with report.compiling():
            pass
        clock.now += 4.5
        report.write(10, {"loss": 1.0})  # 64 examples/s: 24 TFLOP/s of each device's 32
        report.write(10, {"loss": 1.0}, prefix="validation")
    training, validation = metrics_log.read(tmp_path / "metrics.jsonl")
    assert (training["tflops_per_device"], training["mfu"]) == (24.0, 0.75)
    assert {name: training[name] for name in memory} == memory
    assert validation == {"step": 10, "validation/loss": 1.0}
    assert "64 examples/s  75 % MFU  data 0 %" in stream.getvalue()
    told = {tag: value for _, tag, value in scalars(tmp_path)}
    assert (told["mfu"], told["device_memory_gib"]) == (0.75, 40.25)
    # What differs between a run and its repetition is named, so that the rest can be compared.
    assert training.keys() - set(metrics_log.SPEEDS) == {"step", "loss"}


def test_an_unknown_peak_leaves_only_the_share_out(tmp_path, clock):
    stream = io.StringIO()
    with make(tmp_path, clock, stream, flops_per_example=1e12, devices=4) as report:
        with report.compiling():
            pass
        clock.now += 4.5
        report.write(10, {})
    (row,) = metrics_log.read(tmp_path / "metrics.jsonl")
    assert row["tflops_per_device"] == 16.0
    assert "mfu" not in row
    assert "MFU" not in stream.getvalue()


def test_memory_is_measured_by_default(tmp_path, clock):
    with RunReport(tmp_path, 100, batch_size=32, clock=clock, stream=io.StringIO()) as report:
        report.write(10, {"loss": 1.0})
    (row,) = metrics_log.read(tmp_path / "metrics.jsonl")
    assert row["host_memory_gib"] > 0.05


def test_speeds_leave_compilation_and_pauses_out_and_the_time_left_counts_pauses(tmp_path, clock):
    stream = io.StringIO()
    with make(tmp_path, clock, stream, start_step=20) as report:
        with report.compiling():  # step 21
            clock.now += 500
        clock.now += 10
        with report.paused():
            clock.now += 30
        clock.now += 10
        report.write(31, {})  # 10 steps in 20 s of training, 50 s in all
        clock.now += 5
        report.write(41, {})  # 10 steps in 5 s
    rows = metrics_log.read(tmp_path / "metrics.jsonl")
    assert [row["steps_per_second"] for row in rows] == [0.5, 2.0]
    # 69 steps at 5 s, then 59 steps at 55 s / 20 steps.
    assert re.findall(r"ETA (\S+)", stream.getvalue()) == ["5:45", "2:42"]


def test_without_a_timed_first_step_the_first_report_starts_the_clock(tmp_path, clock):
    with make(tmp_path, clock) as report:
        clock.now += 500
        report.write(10, {"loss": 1.0})
        clock.now += 4
        report.write(30, {"loss": 1.0})
        report.write(30, {"loss": 1.0})  # no step since: no speed
    rows = metrics_log.read(tmp_path / "metrics.jsonl")
    assert [row.get("steps_per_second") for row in rows] == [None, 5.0, None]


def test_long_times_left_show_hours(tmp_path, clock):
    stream = io.StringIO()
    with make(tmp_path, clock, stream) as report:
        with report.compiling():
            pass
        clock.now += 50
        report.write(2, {})
    assert "ETA 1:21:40" in stream.getvalue()


def test_on_a_terminal_the_progress_line_is_rewritten_and_the_others_stay(tmp_path, clock):
    stream = Terminal()
    with make(tmp_path, clock, stream) as report:
        report.log("hello")
        report.write(7, {"loss": 123.456789})
        report.write(8, {"loss": 1.0})
        report.write(8, {"loss": 2.0}, prefix="validation")
        report.write(9, {"loss": 0.5})
    assert stream.screen() == [
        "hello",
        "step   8/100  validation:  loss 2",
        "step   9/100  loss 0.5",
        "",
    ]


def test_the_progress_line_never_wraps(tmp_path, clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "31")
    stream = Terminal()
    with make(tmp_path, clock, stream) as report:
        report.write(7, {f"metric_{i}": i for i in range(20)})
    assert len(stream.screen()[0]) <= 30


def test_the_progress_line_shows_the_chosen_metrics_in_order(tmp_path, clock):
    stream = io.StringIO()
    with make(tmp_path, clock, stream, shown=("loss", "accuracy", "absent")) as report:
        report.write(7, {"accuracy": 0.5, "grad_norm": 3.0, "loss": 1.0})
    assert stream.getvalue() == "step   7/100  loss 1  accuracy 0.5\n"
    assert metrics_log.read(tmp_path / "metrics.jsonl")[0]["grad_norm"] == 3.0


@pytest.mark.filterwarnings("error")
def test_a_loss_that_is_not_finite_is_shown_and_recorded(tmp_path, clock):
    stream = io.StringIO()
    with make(tmp_path, clock, stream) as report:
        report.write(7, {"loss": float("nan"), "lr": 1.0})
    assert "loss nan" in stream.getvalue()
    assert metrics_log.read(tmp_path / "metrics.jsonl") == [{"step": 7, "loss": None, "lr": 1.0}]
    assert scalars(tmp_path) == [(7, "lr", 1.0)]


def test_a_resumed_run_hides_what_its_last_life_wrote_beyond_the_checkpoint(tmp_path, clock):
    with make(tmp_path, clock) as report:
        for step in (10, 20, 30):
            report.write(step, {"loss": float(step)})
    stream = io.StringIO()
    with make(tmp_path, clock, stream, start_step=20) as report:
        report.write(30, {"loss": 0.5})
    rows = [(row["step"], row["loss"]) for row in metrics_log.read(tmp_path / "metrics.jsonl")]
    assert rows == [(10, 10.0), (20, 20.0), (30, 0.5)]
    assert "removed 1 line that an earlier process" in stream.getvalue()
    # Within the same second, yet no file was overwritten; and TensorBoard is told to purge.
    assert [step for step, _, _ in scalars(tmp_path)] == [10, 20, 30, 30]
    purges = [e.step for e in events(tmp_path) if e.HasField("session_log")]
    assert purges == [1, 21]


def test_other_hosts_write_nothing(tmp_path, clock):
    stream = io.StringIO()
    folder = tmp_path / "run"
    with make(folder, clock, stream, active=False) as report:
        with report.compiling(), report.paused(), report.waiting():
            report.log("hello")
        report.write(7, {"loss": 1.0})
    assert stream.getvalue() == ""
    assert not folder.exists()
