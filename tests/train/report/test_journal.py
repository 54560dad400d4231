import json
import math
import multiprocessing
import os
import signal

import numpy as np
import pytest

from train.report import metrics_log


def strict(constant):
    raise AssertionError(f"{constant} is not JSON")


def write(path, rows, tail=b""):
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + tail)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_rows_come_back_as_they_were(path):
    rows = [{"step": 5, "loss": 0.1, "lr": 1e-30}, {"step": 5, "validation/loss": 1 / 3}]
    record = metrics_log.MetricsLog(path)
    for row in rows:
        record.append(row)
    assert metrics_log.read(path) == rows  # before close: nothing waits
    record.close()


def test_float32_losses_come_back_to_the_bit(path, rng):
    losses = rng.normal(size=101).astype("f4")
    record = metrics_log.MetricsLog(path)
    for step, loss in enumerate(losses, start=1):
        record.append({"step": np.int32(step), "loss": loss})
    record.close()
    np.testing.assert_array_equal(
        np.float32([row["loss"] for row in metrics_log.read(path)]), losses
    )


def test_what_is_not_finite_becomes_null_not_nan(path):
    record = metrics_log.MetricsLog(path)
    record.append({"step": 1, "a": math.nan, "b": math.inf, "c": np.float32("-inf"), "d": 2.0})
    record.close()
    row = json.loads(path.read_text(), parse_constant=strict)
    assert row == {"step": 1, "a": None, "b": None, "c": None, "d": 2.0}


def test_resuming_removes_what_came_after_and_keeps_the_rest_untouched(path):
    rows = [{"step": step, "loss": 1.0} for step in (3, 6, 9)]
    write(path, [rows[0], rows[1], {"step": 6, "validation/loss": 2.0}, rows[2]])
    record = metrics_log.MetricsLog(path, start_step=6)
    record.append({"step": 9, "loss": 7.0})
    record.close()
    assert record.dropped == 1
    assert metrics_log.read(path) == [
        *rows[:2],
        {"step": 6, "validation/loss": 2.0},
        {"step": 9, "loss": 7.0},
    ]


@pytest.mark.parametrize("tail", [b'{"step": 9, "lo', b'{"step": 9, "loss": \xff', b"\0\0\0"])
def test_a_half_written_last_line_is_passed_over_and_removed(path, tail):
    rows = [{"step": 3, "loss": 1.0}]
    write(path, rows, tail)
    assert metrics_log.read(path) == rows
    record = metrics_log.MetricsLog(path, start_step=12)
    record.append({"step": 15, "loss": 2.0})
    record.close()
    assert record.dropped == 1
    assert metrics_log.read(path) == [*rows, {"step": 15, "loss": 2.0}]


def test_a_last_line_that_lacks_only_its_end_is_kept(path):
    write(path, [{"step": 3}], b'{"step": 6}')
    record = metrics_log.MetricsLog(path, start_step=6)
    record.append({"step": 9})
    record.close()
    assert record.dropped == 0
    assert [row["step"] for row in metrics_log.read(path)] == [3, 6, 9]


NESTED, HUGE = b'{"step": ' + b"[" * 100_000, b'{"step": 4, "x": ' + b"9" * 400 + b"}"


@pytest.mark.parametrize(
    "line", [b"{", b"[1]", b'{"loss": 1.0}', b'{"step": "3"}', NESTED, HUGE], ids=range(6)
)
def test_a_broken_line_in_the_middle_is_named_by_read_and_removed_by_resuming(path, line):
    write(path, [{"step": 3}], line + b'\n{"step": 6}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2 is not .* delete that line"):
        metrics_log.read(path)
    metrics_log.MetricsLog(path, start_step=6).close()
    assert [row["step"] for row in metrics_log.read(path)] == [3, 6]


def test_an_evaluation_repeated_where_the_run_resumes_is_told_once(path):
    write(path, [{"step": 6, "loss": 1.0}, {"step": 6, "validation/loss": 2.0}])
    record = metrics_log.MetricsLog(path, start_step=6)
    record.append({"step": 6, "validation/loss": 2.0})
    record.append({"step": 6, "test/loss": 3.0})
    record.append({"step": 9, "loss": 1.0})
    record.append({"step": 9, "validation/loss": 2.0})
    record.close()
    assert [list(row)[1] for row in metrics_log.read(path)] == [
        "loss",
        "validation/loss",
        "test/loss",
        "loss",
        "validation/loss",
    ]


def test_a_crash_while_cutting_back_leaves_the_old_file(path, monkeypatch):
    write(path, [{"step": 3}, {"step": 6}])
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError("disk on fire")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk on fire"):
        metrics_log.MetricsLog(path, start_step=3)
    assert path.read_bytes() == before


def test_a_missing_journal_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl does not exist"):
        metrics_log.read(path)


def _append_and_die(path):
    record = metrics_log.MetricsLog(path)
    for step in range(1, 8):
        record.append({"step": step, "loss": float(step)})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_loses_no_line(path):
    # Spawned, not forked: forking a process that runs JAX is unsafe.
    process = multiprocessing.get_context("spawn").Process(target=_append_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [row["step"] for row in metrics_log.read(path)] == [*range(1, 8)]
