"""The comparison page: contenders of one size, results that are kept, and what is made of them."""

import functools
import json
import subprocess
import sys

import pytest

from benchmarks import measure
from benchmarks.compare import models, page
from benchmarks.compare.results import Results


@pytest.mark.parametrize("name", ["Perceiver", models.CONVOLUTION])
def test_widths_meet_a_number_of_parameters(name):
    width = models.width_for(functools.partial(models.image, name, 4), 20_000)
    assert models.count(models.image(name, 8, width)) == pytest.approx(20_000, rel=0.15)


def test_longer_windows_leave_the_width_alone():
    (short,), (long,) = (models.texts(n, 20_000, ["Transformer"]).values() for n in (128, 512))
    assert long == short | {"max_length": 512}


def test_what_was_measured_is_not_measured_again(tmp_path):
    calls = []

    def measured():
        calls.append(1)
        return {"accuracy": 50.0}

    for _ in range(2):  # as two calls of the command
        results = Results(tmp_path, say=lambda line: None)
        row = results.measure(measured, part="little data", system="Perceiver", seed=0)
    assert len(calls) == 1
    assert row == {"part": "little data", "system": "Perceiver", "seed": 0, "accuracy": 50.0}


def test_the_page_tells_means_and_every_seed(tmp_path):
    results = Results(tmp_path, say=lambda line: None)
    for seed, accuracy in enumerate((70.0, 80.0)):
        key = {"system": "Perceiver IO", "examples": 40, "parameters": 60_124, "seed": seed}
        results.measure(lambda x=accuracy: {"accuracy": x}, part="little data", **key)
    results.measure(lambda: {"temp_mib": 9000.0}, part="lengths", inputs=1024, system="Transformer")
    text = page.render(results)
    assert "| Perceiver IO | 60,124 | 75.0 (70.0, 80.0) |" in text
    assert "| Transformer | 9,000.0 MiB, not run |" in text
    page.draw(results, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_command(tmp_path):
    command = [sys.executable, "-m", "benchmarks.compare", "--smoke", "--folder", str(tmp_path)]
    subprocess.run(command, cwd=measure.ROOT, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    for part in ("little data", "lengths", "equal time"):
        systems = {row["system"] for row in rows if row["part"] == part}
        assert systems == {"Performer", models.CONVOLUTION}
    assert "bits per masked byte" in (tmp_path / "COMPARISON.md").read_text()
