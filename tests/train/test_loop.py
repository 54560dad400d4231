"""The loop as a whole: bit-exact resume, other placements, faults, what a run leaves behind."""

import json

import numpy as np
import pytest

import train.loop
from configs import digits
from data.dataset import BrokenExample
from data.images import digits as digits_data
from perceiver.weights import mapping, native
from train.report.metrics_log import SPEEDS, read
from train.run import workdir
from train.run.window import MetricWindow, NonFiniteError

STEPS = 11
# After STEPS LAMB steps, relative to the largest parameter: placements reduce in another order.
PLACEMENT_TOLERANCE = 1e-4


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop may catch it."""


def small_config(**changes):
    c = digits.get_config("fourier,smoke")
    c.placement = "single"
    c.model.update(dropout_rate=0.1)
    c.optim.update(ema_decay=0.9, lr=3e-3)
    c.train.update(steps=STEPS, log_every=3, save_every=2, eval_every=4)
    c.update_from_flattened_dict(changes)
    return c


def weights(folder):
    return mapping.flatten(native.load(folder / "model").params)


def rows(folder):
    return [
        {name: value for name, value in row.items() if name not in SPEEDS}
        for row in read(folder / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody killed."""
    folder = tmp_path_factory.mktemp("whole")
    results = train.loop.run(small_config(), folder)
    return folder, results


def kill_at(step, monkeypatch):
    add = MetricWindow.add

    def killing(self, at, sums):
        if at == step:
            raise Killed
        add(self, at, sums)

    monkeypatch.setattr(MetricWindow, "add", killing)


@pytest.mark.parametrize("step", [1, 4, 8])  # before any checkpoint; between; in an open window
def test_a_killed_run_goes_on_bit_for_bit(whole, step, tmp_path, monkeypatch):
    folder, results = whole
    with monkeypatch.context() as patch:
        kill_at(step, patch)
        with pytest.raises(Killed):
            train.loop.run(small_config(), tmp_path)
    resumed = train.loop.run(small_config(), tmp_path)
    assert resumed == results
    assert rows(tmp_path) == rows(folder)
    ours, theirs = weights(tmp_path), weights(folder)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("placement", [pytest.param("pmap", marks=pytest.mark.slow), "sharded"])
def test_another_placement_goes_on_where_one_device_stopped(
    whole, placement, tmp_path, monkeypatch
):
    no_dropout = {"model.dropout_rate": 0.0}  # replicas draw their own masks
    reference = tmp_path / "one"
    train.loop.run(small_config(**no_dropout), reference)
    with monkeypatch.context() as patch:
        kill_at(7, patch)
        with pytest.raises(Killed):
            train.loop.run(small_config(**no_dropout), tmp_path / "two")
    train.loop.run(small_config(placement=placement, **no_dropout), tmp_path / "two")
    ours, theirs = weights(tmp_path / "two"), weights(reference)
    for key, expected in theirs.items():
        if key.endswith("key/b"):  # its true gradient is zero: what is left is rounding noise
            continue
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            ours[key], expected, atol=PLACEMENT_TOLERANCE * scale, err_msg=key
        )


def test_what_a_run_leaves_behind(whole):
    folder, results = whole
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoints", "curves.png", "model"} <= names
    assert {"attention.png", "samples"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    lines = rows(folder)
    assert [row["step"] for row in lines if "loss" in row] == [3, 6, 9, 11]
    assert [row["step"] for row in lines if "validation/loss" in row] == [4, 8, 11]
    assert lines[-1]["validation/accuracy"] == results["accuracy"]
    saved = json.loads((folder / "config.json").read_text())
    assert saved["model"]["kind"] == "image_classifier"


@pytest.mark.slow
def test_broken_examples_are_said_once_and_summed_up(tmp_path, monkeypatch, capsys):
    intact = digits_data.Digits.example

    def example(self, index, epoch):
        if index % 100 == 7:
            raise BrokenExample("cut short")
        return intact(self, index, epoch)

    monkeypatch.setattr(digits_data.Digits, "example", example)
    train.loop.run(small_config(**{"data.batch_size": 64}), tmp_path)
    told = capsys.readouterr().out.splitlines()
    skipped = [line for line in told if line.startswith("broken ")]
    assert len(set(skipped)) == len(skipped)
    held_out = [line for line in skipped if line.startswith("broken validation")]
    # of 599, in each of three evaluations
    assert held_out == [
        f"broken validation example, skipped: example {100 * i + 7}: cut short" for i in range(6)
    ]
    assert "broken training example, skipped: example" in "".join(skipped)
    (summary,) = [line for line in told if "were skipped" in line]
    assert summary.startswith(f"{len(skipped)} broken examples were skipped: example ")


def test_every_log_line_says_how_long_the_data_took(whole):
    timed = [row for row in read(whole[0] / "metrics.jsonl") if "data_wait" in row]
    assert [row["step"] for row in timed] == [3, 6, 9, 11]
    for row in timed:
        assert 0 <= row["data_wait"] <= 1
        share = row["step_seconds"] * row["steps_per_second"]
        assert share + row["data_wait"] == pytest.approx(1)


def test_a_finished_run_trains_no_further(whole):
    folder, results = whole
    before = (folder / "metrics.jsonl").read_text(), weights(folder)
    assert train.loop.run(small_config(), folder) == results
    assert (folder / "metrics.jsonl").read_text() == before[0]
    assert all(np.array_equal(x, before[1][key]) for key, x in weights(folder).items())


def test_the_folder_of_another_config_is_refused(whole):
    folder, _ = whole
    with pytest.raises(ValueError, match=r"another config.*\n  optim.lr: there 0.003, now 0.5"):
        train.loop.run(small_config(**{"optim.lr": 0.5}), folder)


def test_free_settings_may_change(whole):
    folder, _ = whole
    workdir.claim(folder, small_config(**{"train.keep": 1, "placement": "pmap"}), write=False)


def test_a_damaged_checkpoint_is_passed_over_and_named(whole, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        kill_at(8, patch)
        with pytest.raises(Killed):
            train.loop.run(small_config(), tmp_path)
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.name))
    victim = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-7])
    train.loop.run(small_config(), tmp_path)
    assert "damaged checkpoint" in capsys.readouterr().out
    theirs = weights(whole[0])
    assert all(np.array_equal(x, theirs[key]) for key, x in weights(tmp_path).items())


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    # a learning rate of 1e30 after the first save: the next loss overflows
    config = small_config(**{"optim.name": "adamw", "optim.schedule": "constant"})
    config.train.update(save_every=2, log_every=4)
    config.optim.lr = 1e30
    with pytest.raises(NonFiniteError, match=r"not finite at step \d+: .*Lower optim.lr"):
        train.loop.run(config, tmp_path)
    assert not (tmp_path / "model").exists()
    for row in rows(tmp_path):
        assert np.isfinite(row["loss"])


@pytest.mark.slow
def test_init_from_takes_the_weights_of_another_run(whole, tmp_path, capsys):
    folder, _ = whole
    config = small_config(**{"init_from.source": str(folder)})
    config.optim.lr = 1e-12
    train.loop.run(config, tmp_path)
    assert f"from {folder}" in capsys.readouterr().out
    theirs = weights(folder)
    for key, x in weights(tmp_path).items():
        np.testing.assert_allclose(x, theirs[key], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "clustering"}, "unknown task 'clustering'"),
        ({"data.source": "digitz"}, "digitz"),
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
        train.loop.run(small_config(**change), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
