import json
import math

import matplotlib.image
import numpy as np
import pytest

from train import curves


def write_run(folder, total=200, log_every=1, eval_every=40, lr=lambda part: 1e-3, loss=None):
    loss = loss or (lambda part: 2.3 * math.exp(-part) + 1)
    rows = []
    for step in range(1, total + 1):
        part = step / total
        if step % log_every == 0:
            rows.append({"step": step, "loss": loss(part), "lr": lr(part), "steps_per_second": 9.0})
        if step % eval_every == 0:
            rows.append({"step": step, "validation/loss": loss(part), "validation/accuracy": part})
    folder.mkdir(exist_ok=True)
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 999, "lo')
    return path


def panels(monkeypatch, path, png, only=()):
    """Draws and returns {label of the vertical axis: axes}."""
    figures = []
    figure_class = curves.Figure
    monkeypatch.setattr(
        curves, "Figure", lambda **kw: figures.append(figure_class(**kw)) or figures[0]
    )
    curves.draw(path, png, only)
    return {axes.get_ylabel(): axes for axes in figures[0].axes}


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_panel_for_each_metric_with_training_and_validation_together(tmp_path, monkeypatch):
    path = write_run(tmp_path / "my-run", loss=lambda part: 3 - part)
    drawn = panels(monkeypatch, path, tmp_path / "curves.png")
    assert list(drawn) == ["loss", "accuracy", "learning rate"]
    assert legend(drawn["loss"]) == ["training, smoothed: last 2.017", "validation: last 2"]
    assert legend(drawn["accuracy"]) == ["validation: last 1"]
    raw, smoothed, validation = drawn["loss"].get_lines()
    np.testing.assert_array_equal(raw.get_xdata(), np.arange(1, 201))
    np.testing.assert_allclose(raw.get_ydata(), 3 - np.arange(1, 201) / 200)
    np.testing.assert_array_equal(validation.get_xdata(), [40, 80, 120, 160, 200])
    assert raw.get_color() == smoothed.get_color() != validation.get_color()
    assert drawn["learning rate"].get_xlabel() == "step"
    assert drawn["loss"].figure.get_suptitle() == "my-run"


def test_some_metrics_may_be_asked_for(tmp_path, monkeypatch, capsys):
    path = write_run(tmp_path / "my-run")
    drawn = panels(monkeypatch, path, tmp_path / "some.png", ["accuracy", "loss"])
    assert list(drawn) == ["accuracy", "loss"]
    with pytest.raises(ValueError, match="has no 'bits', only loss, accuracy, lr"):
        curves.draw(path, tmp_path / "none.png", ["bits"])
    monkeypatch.undo()
    curves.main([str(path.parent), "loss", "--out", str(tmp_path / "loss.png")])
    assert capsys.readouterr().out == f"{tmp_path / 'loss.png'}\n"
    assert matplotlib.image.imread(tmp_path / "loss.png").shape[2] == 4


def test_the_picture_is_a_picture(tmp_path):
    png = tmp_path / "curves.png"
    png.write_text("an older one")
    curves.draw(write_run(tmp_path / "run"), png)
    image = matplotlib.image.imread(png)  # [H, W, 4]
    assert image.shape == (960, 960, 4)
    assert image[..., :3].min() < 0.2 < image[..., :3].mean()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "run"]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda part: 2.3 * math.exp(-7 * part), "log"),
        (lambda part: 2.3 * math.exp(-part) + 1, "linear"),
        (lambda part: 1 - 2 * part, "linear"),
        # One lucky batch does not decide.
        (lambda part: 1e-9 if part == 0.5 else 1.0, "linear"),
    ],
)
def test_a_loss_gets_a_log_scale_when_it_falls_far(tmp_path, monkeypatch, loss, expected):
    drawn = panels(monkeypatch, write_run(tmp_path / "run", loss=loss), tmp_path / "curves.png")
    assert drawn["loss"].get_yscale() == expected


@pytest.mark.parametrize(
    ("lr", "expected"),
    [
        (lambda part: 1e-3 * 0.1 ** (2 * part // 0.7), "log"),
        (lambda part: 1e-3 * (1.0001 + math.cos(math.pi * part)), "linear"),
        (lambda part: 1e-3, "linear"),
    ],
)
def test_a_learning_rate_gets_a_log_scale_when_it_falls_in_steps(
    tmp_path, monkeypatch, lr, expected
):
    drawn = panels(monkeypatch, write_run(tmp_path / "run", lr=lr), tmp_path / "curves.png")
    assert drawn["learning rate"].get_yscale() == expected


def test_a_smoke_run_of_two_steps_is_drawn(tmp_path, monkeypatch):
    path = write_run(tmp_path / "run", total=2, eval_every=2)
    drawn = panels(monkeypatch, path, tmp_path / "curves.png")
    ticks = drawn["learning rate"].get_xticks()
    assert legend(drawn["loss"])[0].startswith("training: last")
    np.testing.assert_array_equal(ticks, ticks.astype(int))


def test_a_loss_that_was_not_finite_leaves_a_gap(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": null}\n')
    drawn = panels(monkeypatch, path, tmp_path / "curves.png")
    np.testing.assert_array_equal(drawn["loss"].get_lines()[0].get_xdata(), [1])


@pytest.mark.parametrize("count", [1, 2, 3, 61, 200])
def test_smoothing_keeps_constants_ends_and_length(count):
    np.testing.assert_allclose(curves.smooth(np.full(count, 0.7)), np.full(count, 0.7))


def test_smoothing_does_not_shift_a_line_and_halves_noise(rng):
    line = np.arange(200.0)
    np.testing.assert_allclose(curves.smooth(line)[20:-20], line[20:-20])
    noise = rng.normal(size=200)
    assert curves.smooth(noise).std() < 0.5 * noise.std()


def test_a_run_without_metrics_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": null}\n')
    with pytest.raises(ValueError, match="no metrics yet; train past the first log step"):
        curves.draw(path, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_the_command_draws_into_the_work_dir(tmp_path, capsys):
    write_run(tmp_path)
    curves.main([str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'curves.png'}\n"
    assert (tmp_path / "curves.png").exists()


def test_the_command_names_a_missing_run(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        curves.main([str(tmp_path / "absent")])
    assert stop.value.code == 1
    assert "absent/metrics.jsonl does not exist" in capsys.readouterr().err
