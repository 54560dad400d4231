"""A small form of the chaos benchmark, and that it finds what it looks for."""

import collections
import json
import re
import signal
import subprocess
import sys

import pytest

from benchmarks import measure
from benchmarks.chaos import difference
from benchmarks.chaos.__main__ import table
from benchmarks.chaos.trial import Kill


@pytest.mark.slow
def test_killed_runs_go_on_bit_for_bit(tmp_path):
    words = ["--kills", "3", "--setups", "single", "--steps", "45", "--seed", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *words, "--folder", str(tmp_path)],
        cwd=measure.ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^3 kills, \d+ runs, 0 violations$", done.stdout, re.MULTILINE)
    cells = next(line for line in done.stdout.splitlines() if line.startswith("| single |"))
    equal, runs = cells.split("|")[-2].strip().split("/")
    assert equal == runs


class FakeTrial:
    """What the table asks of a trial."""

    def __init__(self, name):
        self.setup = type("Setup", (), {"name": name})
        kills = {Kill(signal.SIGKILL, "sealed"): 2, Kill(signal.SIGTERM, "training", all=False): 1}
        self.kills = collections.Counter(kills)
        self.runs, self.equal, self.restarts, self.overloaded = 2, 1, 3, 0
        self.lost, self.outlived, self.violations = [0, 7], [12.4], ["one"]


def test_the_table_adds_up():
    lines = table([FakeTrial("single"), FakeTrial("pmap")]).splitlines()
    assert "| single | 3 | 3 | 7 | 12 | 1/2 |" in lines
    assert "| SIGKILL, save sealed | 4 |" in lines
    assert "| SIGTERM to one, training | 2 |" in lines
    assert lines[-1].startswith("6 kills, 4 runs, 2 violations")


def test_a_difference_in_metrics_or_arrays_is_found(tmp_path, monkeypatch, rng):
    arrays = {name: {"a": rng.normal(size=3), "b": rng.normal(size=2)} for name in ("x", "y")}
    arrays["y"]["b"] = arrays["x"]["b"]
    monkeypatch.setattr(difference, "_arrays", lambda folder: arrays[folder.name])
    rows = {"x": [{"step": 1, "loss": 2.0, "steps_per_second": 3.0}]}
    rows["y"] = [{**rows["x"][0], "steps_per_second": 4.0}]
    for name, lines in rows.items():
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text)
    assert difference.compare(tmp_path / "x", tmp_path / "y") == ["1 arrays differ: a"]
    arrays["y"]["a"] = arrays["x"]["a"]
    assert difference.compare(tmp_path / "x", tmp_path / "y") == []
    (tmp_path / "y" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    assert "metrics differ" in difference.compare(tmp_path / "x", tmp_path / "y")[0]
    arrays["y"]["c"] = arrays["x"]["a"]
    assert "'c'" in difference.compare(tmp_path / "x", tmp_path / "y")[0]
