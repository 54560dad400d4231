import copy
import importlib.util
import json
import subprocess
import sys

import pytest

from benchmarks import attention, measure, models, report, scaling, table, targets
from perceiver.model.processor import REMAT

RUN = {
    "benchmark": "attention",
    "command": "python -m benchmarks.attention imagenet",
    "environment": table.environment(),
    "settings": {"smoke": False},
    "rows": [
        {
            "case": "ImageNet, batch 2",
            "work": "forward",
            "form": "separable",
            "dtype": "float32",
            "wall_ratio": 11.94,
            "cpu_ratio": 10.02,
            "temp_ratio": 39.9,
        },
        {"case": "x", "work": "y", "form": "dense", "dtype": "float32", "note": "not run"},
    ],
}


def line(text: str, item: str) -> str:
    (found,) = [x for x in text.splitlines() if x.startswith(f"| {item}")]
    return found


TIME = "ImageNet, batch 2, forward (separable): CPU time against dense"
MEMORY = "ImageNet, batch 2, forward (separable): temporary memory against dense"


def test_a_figure_is_found_judged_and_credited():
    text = report.render([RUN])
    assert "| ≥ 8x | 10x (wall time 11.9x) | met |" in line(text, TIME)
    assert "`python -m benchmarks.attention imagenet`" in line(text, TIME)
    assert "| ≥ 40x | 39.9x | **missed** |" in line(text, MEMORY)
    assert f"jax {table.environment()['jax']}" in text


def test_the_later_run_counts():
    later = copy.deepcopy(RUN)
    later["rows"][0]["cpu_ratio"] = 7.5
    assert "7.5x (wall time 11.9x) | **missed**" in line(report.render([RUN, later]), TIME)
    assert "10x (wall time 11.9x) | met" in line(report.render([later, RUN]), TIME)


def test_other_operands_are_not_the_figure():
    rounded = copy.deepcopy(RUN)
    rounded["rows"][0]["dtype"] = "bfloat16"
    assert "not measured" in line(report.render([rounded]), TIME)


def test_every_row_is_in_the_tables():
    text = report.render([RUN])
    assert "## attention" in text
    assert "| x | y | dense | float32 |" in text


def test_without_runs_nothing_is_claimed():
    text = report.render([])
    assert text.count("not measured") == len(targets.TARGETS)
    assert "met |" not in text


def test_smoke_runs_and_strangers_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(RUN | {"settings": {"smoke": True}}))
    with pytest.raises(ValueError, match="smoke"):
        report.read(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="not written by a benchmark"):
        report.read(path)
    path.write_text(json.dumps(RUN))
    assert report.read(path) == RUN


def test_less_memory_and_time_are_better():
    (million,) = [t for t in targets.TARGETS if t.case.startswith("1,000,000")]
    assert million.text == "≤ 100 MiB"
    assert [million.is_met(x) for x in (99.0, 101.0)] == [True, False]
    assert targets.show("temp_mib", 12345.6) == "12,346 MiB"
    assert targets.show("compile_s", 3.456) == "3.46 s"


def test_every_attention_target_is_measured_by_a_case():
    measured = {
        (case.text, work, form.name, form.dtype)
        for cases in attention.CASES.values()
        for case in cases
        for work, forms in case.works.items()
        for form in forms
    }
    wanted = [t for t in targets.TARGETS if t.benchmark == "attention"]
    assert wanted
    assert [t.item for t in wanted if (t.case, t.work, t.form, t.dtype) not in measured] == []


def test_targets_name_policies_and_benchmarks_that_exist():
    forms = [t.form for t in targets.TARGETS if "remat " in t.form]
    assert {form.split()[-1] for form in forms} <= set(REMAT)
    for target in targets.TARGETS:
        assert importlib.util.find_spec(f"benchmarks.{target.benchmark}")
    assert {models.IMAGENET, models.CLASSICAL} == {
        t.case.split(",")[0] for t in targets.TARGETS if t.benchmark == "models"
    }
    assert {t.work for t in targets.TARGETS if t.benchmark == "scaling"} == set(scaling.WORKS)


def test_the_command_writes_the_document(tmp_path):
    source, out = tmp_path / "a.json", tmp_path / "RESULTS.md"
    source.write_text(json.dumps(RUN))
    command = [sys.executable, "-m", "benchmarks.report", str(source), "--out", str(out)]
    subprocess.run(command, cwd=measure.ROOT, check=True, capture_output=True)
    assert out.read_text() == report.render([RUN])
