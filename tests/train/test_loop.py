"""The loop as a whole: bit-exact resume, other placements, faults, what a run leaves behind."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import train.loop
from data.dataset import BrokenExample
from data.images import digits as digits_data
from perceiver.weights import mapping, native
from tests.train import runs
from tests.train.runs import small
from train.report.metrics_log import read
from train.run import workdir
from train.run.run import open_run
from train.run.window import MetricWindow, NonFiniteError

# After a run's LAMB steps, relative to the largest parameter: placements reduce in another order.
PLACEMENT_TOLERANCE = 1e-4


pytestmark = pytest.mark.usefixtures("_shared_programs")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop may catch it."""


@pytest.fixture
def _no_pictures(monkeypatch):
    """What a complete run leaves behind takes seconds."""
    monkeypatch.setattr(train.loop, "_finish", lambda *_: None)


@pytest.fixture(scope="module")
def whole(trained):
    """A run that nobody killed."""
    return trained("classification")


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def run_until(step, config, folder):
    """Trains until the end of a step, and dies."""
    add = MetricWindow.add

    def killing(self, at, sums):
        if at == step:
            raise Killed
        add(self, at, sums)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricWindow, "add", killing)
        with pytest.raises(Killed):
            train.loop.run(config, folder)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run killed before any checkpoint, with a window open at its first, and at its last step."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    with runs.shared_programs():
        for step in (1, 7, 11):
            run_until(step, small(), folder)
    return folder


@pytest.fixture
def stopped(killed, tmp_path):
    return shutil.copytree(killed, tmp_path / "stopped")


@pytest.mark.usefixtures("_no_pictures")
def test_a_killed_run_goes_on_bit_for_bit(whole, stopped):
    assert sorted(path.name for path in (stopped / "checkpoints").iterdir()) == ["10", "5"]
    assert train.loop.run(small(), stopped) == runs.results(whole)
    runs.assert_same_run(stopped, whole)


def assert_close_to(expected, folder):
    (step, ours), (last, theirs) = runs.last_checkpoint(folder), runs.last_checkpoint(expected)
    assert step == last
    for key, x in theirs.items():
        # the true gradient of a key's bias is zero: what is left is rounding noise
        if key.startswith(("params", "ema")) and not key.endswith("key/b"):
            atol = PLACEMENT_TOLERANCE * np.abs(x).max()
            np.testing.assert_allclose(ours[key], x, rtol=0, atol=atol, err_msg=key)


@pytest.mark.usefixtures("_no_pictures")
def test_eight_devices_go_on_where_one_stopped(whole, stopped):
    shutil.rmtree(stopped / "checkpoints" / "10")
    train.loop.run(small(placement="sharded"), stopped)
    assert_close_to(whole, stopped)


@pytest.mark.slow  # test_multihost.py has replicas go on from a checkpoint of one device
@pytest.mark.usefixtures("_no_pictures")
def test_replicas_go_on_where_one_device_stopped(tmp_path):
    no_dropout = {"model.dropout_rate": 0.0}  # replicas draw their own masks
    train.loop.run(small(**no_dropout), tmp_path / "one")
    run_until(7, small(**no_dropout), tmp_path / "two")
    train.loop.run(small(placement="pmap", **no_dropout), tmp_path / "two")
    assert_close_to(tmp_path / "one", tmp_path / "two")


def test_what_a_run_leaves_behind(whole):
    folder, results = whole, runs.results(whole)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoints", "curves.png", "model"} <= names
    assert {"attention.png", "samples"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    lines = runs.rows(folder)
    assert [row["step"] for row in lines if "loss" in row] == [3, 6, 9, 11]
    assert [row["step"] for row in lines if "validation/loss" in row] == [4, 8, 11]
    assert lines[-1]["validation/accuracy"] == results["accuracy"]
    saved = json.loads((folder / "config.json").read_text())
    assert saved["model"]["kind"] == "image_classifier"


@pytest.mark.usefixtures("_no_pictures")
def test_broken_examples_are_said_once_and_summed_up(tmp_path, monkeypatch, capsys):
    intact = digits_data.Digits.example

    def example(self, index, epoch):
        if index % 20 == 7:
            raise BrokenExample("cut short")
        return intact(self, index, epoch)

    monkeypatch.setattr(digits_data.Digits, "example", example)
    train.loop.run(small(), tmp_path)
    told = capsys.readouterr().out.splitlines()
    skipped = [line for line in told if line.startswith("broken ")]
    assert len(set(skipped)) == len(skipped)
    held_out = [line for line in skipped if line.startswith("broken validation")]
    # of 599, in each of three evaluations
    assert held_out == [
        f"broken validation example, skipped: example {20 * i + 7}: cut short" for i in range(30)
    ]
    assert "broken training example, skipped: example" in "".join(skipped)
    (summary,) = [line for line in told if "were skipped" in line]
    assert summary.startswith(f"{len(skipped)} broken examples were skipped: example ")


def test_every_log_line_says_how_long_the_data_took(whole):
    timed = [row for row in read(whole / "metrics.jsonl") if "data_wait" in row]
    assert [row["step"] for row in timed] == [3, 6, 9, 11]
    for row in timed:
        assert 0 <= row["data_wait"] <= 1
        share = row["step_seconds"] * row["steps_per_second"]
        assert share + row["data_wait"] == pytest.approx(1)


def test_a_finished_run_trains_no_further(whole, copy):
    before = (whole / "metrics.jsonl").read_text(), (whole / "model/model.safetensors").read_bytes()
    assert train.loop.run(small(), copy) == runs.results(whole)
    assert (copy / "metrics.jsonl").read_text() == before[0]
    assert (copy / "model/model.safetensors").read_bytes() == before[1]


def test_the_folder_of_another_config_is_refused(copy):
    with pytest.raises(ValueError, match=r"another config.*\n  optim.lr: there 0.003, now 0.5"):
        train.loop.run(small(**{"optim.lr": 0.5}), copy)


def test_free_settings_may_change(whole):
    changed = {"train.keep": 1, "placement": "pmap", "optim.steps": 11}
    workdir.claim(whole, small(**changed), write=False)


def test_data_that_was_moved_is_known_by_its_name(tmp_path):
    def claim(source):
        return workdir.claim(tmp_path, small(**{"data.source": source}))

    claim("folder:/scratch/1/flowers")
    claim("folder:/scratch/2/flowers/")
    for other in ("folder:/scratch/2/roses", "rows:/scratch/2/flowers", "digits"):
        with pytest.raises(ValueError, match=rf"now '{other}'\nData that was moved is accepted"):
            claim(other)


@pytest.mark.usefixtures("_no_pictures")
def test_a_finished_run_trains_on_with_its_schedule(copy, capsys):
    remedy = r"--config.optim.steps=11 --config.train.steps=12\..*--config.init_from.source="
    with pytest.raises(ValueError, match=remedy):
        train.loop.run(small(**{"train.steps": 12}), copy)
    with pytest.raises(ValueError, match=r"train\.steps=5, but the run is at step 11 already"):
        train.loop.run(small(**{"train.steps": 5, "optim.steps": 11}), copy)
    train.loop.run(small(**{"train.steps": 12, "optim.steps": 11}), copy)
    assert "resumed at step 11" in capsys.readouterr().out
    assert read(copy / "metrics.jsonl")[-1]["step"] == 12


def test_one_process_at_a_time_trains_into_a_folder(tmp_path):
    code = (
        "import time; from train.run import workdir\n"
        f"with workdir.lock({str(tmp_path)!r}): print(flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=runs.ROOT) as other:
        other.stdout.readline()
        message = f"in use: process {other.pid} on .* is training into it"
        with pytest.raises(ValueError, match=message):
            train.loop.run(small(), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [workdir.LOCK]
        other.kill()
        other.wait()
    with workdir.lock(tmp_path):  # what a killed process held is free
        assert f"process {os.getpid()} on" in (tmp_path / workdir.LOCK).read_text()


@pytest.mark.usefixtures("_no_pictures")
def test_a_damaged_checkpoint_is_passed_over_and_named(whole, stopped, capsys):
    newest = stopped / "checkpoints" / "10"
    victim = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-7])
    train.loop.run(small(), stopped)
    told = capsys.readouterr().out
    assert "damaged checkpoint" in told
    assert "resumed at step 5" in told
    shutil.rmtree(stopped / "checkpoints" / "10.damaged", ignore_errors=True)
    runs.assert_same_run(stopped, whole)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    # a learning rate of 1e30 after the first save: the next loss overflows
    config = small(**{"optim.name": "adamw", "optim.schedule": "constant"})
    config.train.update(save_every=2, log_every=4)
    config.optim.lr = 1e30
    with pytest.raises(NonFiniteError, match=r"not finite at step \d+: .*Lower optim.lr"):
        train.loop.run(config, tmp_path)
    assert not (tmp_path / "model").exists()
    for row in runs.rows(tmp_path):
        assert np.isfinite(row["loss"])


def test_init_from_takes_the_weights_of_another_run(whole, tmp_path, capsys):
    with open_run(small(**{"init_from.source": str(whole)}), tmp_path) as (_, state):
        found = mapping.flatten(state.params)
        assert int(state.step) == 0
    assert f"from {whole}" in capsys.readouterr().out
    theirs = mapping.flatten(native.load(whole / "model").params)
    assert found.keys() == theirs.keys()
    for key, x in theirs.items():
        np.testing.assert_array_equal(found[key], x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "clustering"}, "unknown task 'clustering'"),
        ({"data.source": "digitz"}, "digitz"),
        ({"data.source": "tfds:mnist"}, "mnist"),
        ({"model.classes": 11}, r"model.classes=11.*10 classes; set model.classes=10"),
        ({"data.image_size": 9}, r"image_shape=\(8, 8, 1\).*\(9, 9, 1\)"),
        ({"model.self_heads": 7}, "must be a multiple of self_heads=7"),
        ({"train.steps": 0}, "train.steps=0"),
        ({"train.log_every": 0}, "train.log_every=0"),
        ({"optim.ema_decay": 1.0}, "optim.ema_decay=1.0"),
        ({"placement": "pmapped"}, "unknown placement 'pmapped'"),
        ({"placement": "pmap", "data.batch_size": 12}, "batch size 12 does not divide"),
        ({"train.micro_batches": 3}, "batch size 8 does not divide"),
        ({"init_from.source": "/nowhere"}, "neither a file nor a folder"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(change, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train.loop.run(small(**change), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
