"""The library alone, without any extra, loads, predicts and converts."""

import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import perceiver
from perceiver.media import video_files
from perceiver.pretrained import similarity
from perceiver.text import subwords, vocabularies

ROOT = pathlib.Path(__file__).resolve().parents[2]

PICKLED = ROOT / "tests" / "golden" / "tiny_language_perceiver_io_bytes.pickle"

# What only training, tests and extras need, by import name.
ABSENT = (
    "array_record",
    "av",
    "grain",
    "huggingface_hub",
    "hypothesis",
    "matplotlib",
    "ml_collections",
    "optax",
    "orbax",
    "sentencepiece",
    "sklearn",
    "tensorboardX",
    "tensorflow",
    "tensorflow_datasets",
    "tokenizers",
    "torch",
    "transformers",
)
PROGRAM = """
import json, pathlib, sys
for name in {absent!r}:
    sys.modules[name] = None  # importing it fails
import perceiver
from perceiver.media import video_files
from perceiver.text import subwords
from perceiver import embed, predict, search
from perceiver.weights import __main__ as weights

pickled, folder = {pickled!r}, pathlib.Path({folder!r})
(folder / "spec.json").write_text(json.dumps({spec!r}))
arguments = ["convert", pickled, str(folder / "native"), "--to", "native"]
assert weights.main([*arguments, "--spec", str(folder / "spec.json")]) == 0
model = perceiver.load(folder / "native")
assert model.fill_mask("a[MASK:2]c").text[0] == "a"
predict.main([str(folder / "native"), "[MASK]bc", "--json"])
assert weights.main(["inspect", str(folder / "native")]) == 0
(folder / "lines.txt").write_text("one\\ntwo\\n")
embed.main([str(folder / "native"), str(folder / "lines.txt"), "--out", str(folder / "x.npy")])
search.main([str(folder / "x.npy"), str(folder / "lines.txt"), "--pairs", "1"])
"""
SPEC = {
    "kind": "masked_lm",
    "max_length": 32,
    "embedding_channels": 24,
    "latents": 12,
    "latent_channels": 40,
    "layers": 2,
    "cross_heads": 4,
    "cross_qk_channels": 16,
    "cross_v_channels": 40,
    "self_heads": 4,
    "self_qk_channels": 16,
    "query_heads": 4,
    "query_qk_channels": 16,
}


def test_the_library_needs_no_extra(tmp_path):
    program = PROGRAM.format(absent=ABSENT, pickled=str(PICKLED), folder=str(tmp_path), spec=SPEC)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env=os.environ | {"PERCEIVER_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"spans"' in done.stdout


@pytest.mark.parametrize(
    ("call", "extra"),
    [
        (lambda: perceiver.load("deepmind/optical-flow-perceiver"), "pip install huggingface-hub"),
        (lambda: video_files.read(__file__, (8, 8), **_RATES), "pip install av"),
        (lambda: similarity.clusters(np.eye(3), count=2), "pip install scikit-learn"),
        (lambda: similarity.nearest(np.eye(3), np.eye(3), 2), "pip install scikit-learn"),
        (lambda: subwords.Subwords(__file__), "pip install sentencepiece"),
        (lambda: vocabularies.Vocabulary(__file__), "pip install tokenizers"),
    ],
)
def test_what_needs_an_extra_names_it(call, extra, monkeypatch):
    for name in ("av", "huggingface_hub", "sentencepiece", "sklearn", "tokenizers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=extra):
        call()


_RATES = {"frames_per_second": 25, "sample_rate": 48_000}


def test_python_without_assertions_is_refused():
    """Haiku pops its frames in them."""
    done = subprocess.run(
        [sys.executable, "-O", "-c", "import perceiver"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "perceiver does not run under python -O" in done.stderr
