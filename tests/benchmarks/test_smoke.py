"""Every benchmark runs at tiny sizes, as its command line says, and writes what it prints."""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import types

import pytest

from benchmarks import measure, models
from benchmarks.performer import swap

slow = pytest.mark.slow


def run(module: str, *words: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", *words]
    done = subprocess.run(command, cwd=measure.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("module", "words", "forms"),
    [
        ("attention", ["million"], {"separable"}),
        pytest.param(
            "attention",
            ["arbitrary", "flow-decoder", "video"],
            {"dense", "shared", "separable", "auto"},
            marks=slow,
        ),
        pytest.param("models", [], {"dense", "auto", "remat none", "remat layer"}, marks=slow),
    ],
)
def test_smoke(tmp_path, module, words, forms):
    path = tmp_path / "rows.json"
    printed = run(module, *words, "--smoke", "--rounds", "2", "--json", str(path))
    found = json.loads(path.read_text())
    assert (found["benchmark"], found["settings"]["smoke"]) == (module, True)
    assert forms <= {row["form"] for row in found["rows"]}
    for row in found["rows"]:
        assert row["case"] in printed
        assert row.get("error", 0) < (1e-5 if row["dtype"] == "float32" else 0.1)
        assert "resident_mib" in row or row["temp_mib"] >= 0
    assert "the figures mean nothing" in printed


@slow
def test_performer(tmp_path):
    figures, picture = tmp_path / "figures.json", tmp_path / "performer.png"
    words = ("--parts", "error", "scaling", "--json", str(figures), "--png", str(picture))
    printed = run("performer", "--smoke", *words)
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(figures.read_text())
    for row in found["kernel"]:  # as many draws as in the full run
        if not row["orthogonal"]:
            assert row["measured"] == pytest.approx(row["closed_form"], rel=0.2)
    assert {row["kernel"] for row in found["scaling"]} == {"exact", "positive", "ReLU"}
    assert "the figures mean nothing" in printed


def test_performer_swaps_kernels(tmp_path, monkeypatch):
    """What is trained from what; the trainings themselves are stand-ins."""
    runs = []

    def train(config, folder):
        runs.append((folder.name, config.model.kernel, config.init_from.source))
        return {"bits": float(len(runs))}

    monkeypatch.setattr(swap.loop, "run", train)
    swapped = types.SimpleNamespace(experiment=None, state=None)
    monkeypatch.setattr(swap.trained, "from_weights", lambda config, source: swapped)
    monkeypatch.setattr(swap.evaluate, "predict", lambda *_: ({"bits": 9.0}, {}))
    rows = swap.measure(tmp_path, smoke=True)
    first = str(tmp_path / "exact")
    assert runs[0] == ("exact", "auto", "")
    assert [run[1:] for run in runs[1:]] == [(kernel, first) for _, kernel, _ in swap.SWAPS]
    assert len({name for name, _, _ in runs}) == 5  # no run goes on with another's checkpoints
    assert "| ReLU, fixed | 9.00 | 5.00 |" in swap.table(rows)


@slow
def test_scaling_draws(tmp_path):
    rows, picture = tmp_path / "rows.json", tmp_path / "scaling.png"
    run("scaling", "--smoke", "--rounds", "1", "--json", str(rows), "--png", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(rows.read_text())["rows"]
    assert {row["form"] for row in found} == {"dense", "auto"}
    assert len({row["inputs"] for row in found}) == 2
    peaks = [row["resident_mib"] for row in found if "resident_mib" in row]
    assert len(peaks) == 2
    assert min(peaks) > 50


@slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_input_pipeline(tmp_path):
    path = tmp_path / "rows.json"
    # A Python that does not exist has no TensorFlow: ours alone.
    words = ("--smoke", "--rounds", "1", "--peer-python", "no-such-python", "--json", str(path))
    assert "tf.data left out" in run("input_pipeline", *words)
    rows = json.loads(path.read_text())["rows"]
    assert {row["form"] for row in rows} == {"ours", "ours, RandAugment"}
    assert all(row["images_per_core_s"] > 0 for row in rows)


@slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_clip_pipeline(tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "rows.json"
    run("clip_pipeline", "--smoke", "--rounds", "1", "--json", str(path))
    rows = json.loads(path.read_text())["rows"]
    timed = [row for row in rows if "clips_per_core_s" in row]
    assert {row["form"] for row in timed} >= {"ours", "ours, picture alone", "VideoCapture"}
    assert all(row["clips_per_core_s"] > 0 for row in timed)
    shares = {row["form"]: row["share"] for row in rows if "share" in row}
    assert shares.keys() >= {"decode", "resize", "colour", "sound"}
    assert sum(shares.values()) == pytest.approx(1)
    held = [row["resident_mib"] for row in rows if "resident_mib" in row]
    assert len(held) == 4  # reading, then preparing: early, and at the end
    assert min(held) > 0


@slow
def test_text_pipeline(tmp_path):
    printed = run("text_pipeline", "--smoke", "--folder", str(tmp_path))
    assert printed.count("tokens/s of a core") == 6
    assert "on all cores: one core gives" in printed


@slow
def test_compile_step():
    printed = run("compile_step", "--batch", "1", "--remat", "layer")
    name, _, *figures = printed.splitlines()[-1].split()
    assert name == "imagenet-fourier"
    assert all(float(figure) > 0 for figure in figures)


@slow
def test_checkpoint(tmp_path):
    path = tmp_path / "rows.json"
    run("checkpoint", "--smoke", "--folder", str(tmp_path), "--json", str(path))
    blocks, *memory = json.loads(path.read_text())["rows"]
    assert 0 < blocks["share"] < 1
    assert [row["work"] for row in memory] == ["save", "restore", "restore on 4 devices"]
    assert [row["note"] for row in memory[1:]] == ["every bit came back"] * 2
    assert list(tmp_path.iterdir()) == [path]  # gigabytes are not left behind


def test_loop_overhead_starts():
    assert "median of the ratios" in run("loop_overhead", "--help")


@slow
def test_dense_memory_grows_by_the_same_for_every_block():
    # What the extrapolation from one and two blocks rests on.
    tiny = models.get_spec(models.IMAGENET, argparse.Namespace(smoke=True))
    spec = dataclasses.replace(tiny, blocks=4, layers=1, latents=127, latent_channels=64)
    exact, guess = (models.dense_memory(spec, exact=exact)["temp_mib"] for exact in (True, False))
    assert guess == pytest.approx(exact, rel=0.02)


@slow
def test_most_similar(tmp_path):
    path = tmp_path / "rows.json"
    printed = run("most_similar", "--smoke", "--json", str(path))
    found = json.loads(path.read_text())
    assert (found["both_pairs"], found["pairs"]) == (8 * 7 / 2, 64 * 63 / 2)
    assert found["cross_extrapolated_s"] == pytest.approx(
        found["pairs"] / found["cross_pairs_per_s"]
    )
    assert found["embed_s"] > found["search_s"] > 0
    assert found["both_cross_s"] > 0
    assert found["orders"].keys() == {"Perceiver", "Transformer"}
    assert all(row["sorted_per_s"] > 0 for row in found["orders"].values())
    assert "8 sentences, both in full: 28 pairs read" in printed


@slow
def test_permuted_digits(tmp_path):
    path = tmp_path / "accuracies.json"
    words = ("--smoke", "--seeds", "3", "--folder", str(tmp_path), "--json", str(path))
    printed = run("permuted_digits", *words)
    found = json.loads(path.read_text())
    assert found["seeds"] == [3]
    for model, count in (("Perceiver IO", "273,200"), ("convolutional network", "274,604")):
        assert f"| {model} | {count} |" in printed
        by_order = found["accuracy"][model]
        assert by_order.keys() == {"as they are", "permuted"}
        assert all(len(values) == 1 and min(values) >= 0 for values in by_order.values())
    # What a permutation does not change from the start it does not change in two steps.
    assert found["accuracy"]["Perceiver IO"]["as they are"] == pytest.approx(
        found["accuracy"]["Perceiver IO"]["permuted"], abs=0.5
    )
    assert (tmp_path / "permuted.png").stat().st_size > 1000
