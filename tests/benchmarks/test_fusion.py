"""What `benchmarks.fusion` makes of average precisions; its smoke form trains."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import fusion, measure
from data.prepare.synthetic import scene_plans


def test_columns_are_means_of_the_groups_without_what_is_not_counted():
    names = scene_plans.CLASSES[::-1]
    values = np.arange(len(names)) / 100
    found = fusion._columns(values, names)
    assert found["all"] == pytest.approx(100 * values.mean())
    assert found["both"] == pytest.approx(1.0)  # the last three, which come first here
    assert found["sight"] == pytest.approx(16.0)
    values[0] = np.nan
    assert fusion._columns(values, names)["both"] == pytest.approx(1.5)


def test_the_table_has_means_and_every_seed():
    columns = {column: [50.0, 61.0] for column in fusion.COLUMNS}
    printed = fusion.table({"both": columns, fusion.CHANCE: {"all": [12.5], "sight": [25.0]}})
    assert "| both | 55.5 (50.0, 61.0) | 55.5 | 55.5 | 55.5 | 55.5 |" in printed
    assert "| chance | 12.5 | 25.0 | - | - | - |" in printed


@pytest.mark.slow
def test_the_smoke_form_trains(tmp_path):
    path = tmp_path / "fusion.json"
    words = ("--smoke", "--seeds", "3", "--json", str(path), "--processes", "1")
    folders = ("--folder", str(tmp_path / "runs"), "--data_dir", str(tmp_path / "data"))
    command = [sys.executable, "-m", "benchmarks.fusion", *words, *folders]
    done = subprocess.run(command, cwd=measure.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    rows = {*fusion.MODELS, "both" + fusion.BLANK, "both, no video dropout" + fusion.BLANK}
    assert found["mAP"].keys() == rows | {fusion.CHANCE}
    assert all(0 < columns["all"][0] <= 100 for columns in found["mAP"].values())
    assert "| both, pictures blank |" in done.stdout
