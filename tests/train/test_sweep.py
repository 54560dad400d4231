"""Sweeps: the points of a grid, resuming, tables."""

import json

import pytest

from train import sweep
from train.report import sweep_table
from train.run.window import NonFiniteError

CONFIG = ["--config=configs/text_classification.py:embedded,smoke", "--config.placement=single"]
GRID = ["optim.lr=1e-4,5e-5", "data.batch_size=8,16"]


def test_points_are_all_combinations():
    found = sweep.points(GRID)
    assert [point.name for point in found] == [
        "lr=1e-4,batch_size=8",
        "lr=1e-4,batch_size=16",
        "lr=5e-5,batch_size=8",
        "lr=5e-5,batch_size=16",
    ]
    assert found[1].arguments == ["--config.optim.lr=1e-4", "--config.data.batch_size=16"]
    assert sweep.points(["a.x=1,2", "b.x=3"])[0].name == "a.x=1,b.x=3"
    assert [point.name for point in sweep.points([])] == ["run"]


@pytest.mark.parametrize(
    "grid", [["optim.lr"], ["optim.lr="], ["lr=1,1"], ["a=1", "a=2"], ["a=1,"]]
)
def test_a_grid_of_another_form_is_refused(grid):
    with pytest.raises(ValueError, match="--grid"):
        sweep.points(grid)


@pytest.fixture
def runs(monkeypatch):
    """Replaces training: the score is rate times batch; some points are killed or diverge."""
    calls, killed, diverging = [], set(), set()

    def run(config, folder):
        calls.append(folder.name)
        folder.mkdir(parents=True, exist_ok=True)
        if folder.name in killed:
            raise KeyboardInterrupt
        if folder.name in diverging:
            raise NonFiniteError("loss or gradient is not finite at step 3; lower it")
        (folder / "trained").write_text(json.dumps(config.optim.lr * config.data.batch_size))

    def assess(folder, into, broken):
        value = json.loads((folder / "trained").read_text())
        return {"accuracy": 0.5, "score": value, "loss": -value, "odd": float("nan")}, {}

    monkeypatch.setattr(sweep.loop, "run", run)
    monkeypatch.setattr(sweep.trained_model, "from_run", lambda folder: folder)
    monkeypatch.setattr(sweep.evaluate, "assess", assess)
    return calls, killed, diverging


def start(folder, **options):
    return sweep.sweep(CONFIG, GRID, folder, log=lambda text: None, **options)


def test_the_best_point_comes_first(runs, tmp_path):
    rows = start(tmp_path)
    assert [row["name"] for row in rows][:1] == ["lr=1e-4,batch_size=16"]
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert lines[0] == "| optim.lr | data.batch_size | score | accuracy | loss |"
    assert lines[2] == "| 1e-4 | 16 | 0.0016 | 0.5000 | -0.0016 |"
    assert len(lines) == 6
    by_loss = start(tmp_path, metric="loss")  # lower is better: the same order here
    assert [row["name"] for row in by_loss] == [row["name"] for row in rows]
    assert len(runs[0]) == 4  # nothing was trained again


def test_a_sweep_that_was_killed_goes_on(runs, tmp_path):
    calls, killed, _ = runs
    killed.add("lr=5e-5,batch_size=8")
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path)
    assert len((tmp_path / "results.md").read_text().splitlines()) == 4
    killed.clear()
    calls.clear()
    assert len(start(tmp_path)) == 4
    assert calls == ["lr=5e-5,batch_size=8", "lr=5e-5,batch_size=16"]


def test_a_point_that_diverges_is_told_and_does_not_end_the_sweep(runs, tmp_path):
    runs[2].add("lr=1e-4,batch_size=8")
    rows = start(tmp_path)
    assert rows[-1]["failure"] == "loss or gradient is not finite at step 3"
    last = (tmp_path / "results.md").read_text().splitlines()[-1]
    assert last == "| 1e-4 | 8 |  |  |  | loss or gradient is not finite at step 3 |"


def test_a_folder_of_another_config_is_refused(runs, tmp_path):
    start(tmp_path)
    with pytest.raises(ValueError, match="holds the result of another config"):
        sweep.sweep([*CONFIG, "--config.seed=3"], GRID, tmp_path, log=lambda text: None)


def test_what_cannot_work_is_found_before_the_first_run(runs, tmp_path):
    with pytest.raises(ValueError, match=r"did you mean optim\.lr"):
        sweep.sweep(CONFIG, ["optim.rl=1,2"], tmp_path / "x", log=lambda text: None)
    with pytest.raises(ValueError, match="evaluation of this task reports accuracy, score, loss"):
        start(tmp_path, metric="f1")


def test_sweeps_make_one_table(runs, tmp_path, capsys):
    start(tmp_path / "cola")
    sweep.main([*CONFIG, "--grid", "optim.lr=3e-2", "--workdir", str(tmp_path / "rte")])
    capsys.readouterr()
    sweep.main(["--table", str(tmp_path / "cola"), str(tmp_path / "rte")])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| cola | 0.16 | lr=1e-4,batch_size=16 | 4 |",
        "| rte | 24.00 | lr=3e-2 | 1 |",
        "| mean | 12.08 |  |  |",
    ]
    with pytest.raises(FileNotFoundError, match="no finished sweep point"):
        sweep_table.of_sweeps([tmp_path], "score")
