"""The record of a run's starts, and a run repeated from its folder alone."""

import datetime
import json
import os
import pathlib
import shutil
import subprocess

import jax
import numpy as np
import pytest

from tests.train import runs
from train import loop
from train.report import provenance
from train.run import workdir

ROOT = pathlib.Path(__file__).resolve().parents[3]
WORDS = ["--config=configs/digits.py:fourier,smoke", "--workdir=runs/a", "--config.seed=3"]


def git(folder, *words):
    """Runs git in `folder` with a configuration of its own."""
    environment = os.environ | {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.com",
    }
    done = subprocess.run(
        ["git", *words], cwd=folder, env=environment, capture_output=True, timeout=60, check=True
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A checkout of one committed file, which the record takes for its own."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    root = (tmp_path / "checkout").resolve()
    root.mkdir()
    (root / "code.py").write_text("x = 1\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "first")
    monkeypatch.setattr(provenance, "_ROOT", root)
    monkeypatch.delenv(provenance.REVISION, raising=False)
    return root


def test_a_line_tells_all_that_a_repetition_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_ANYTHING", "1")
    monkeypatch.setenv("SECRET", "not to be told")
    provenance.append(tmp_path / "run", WORDS)
    (row,) = provenance.read(tmp_path / "run")
    assert row["command"] == WORDS
    assert row["directory"] == str(pathlib.Path.cwd())
    when = datetime.datetime.fromisoformat(row["time"])
    assert when.utcoffset() == datetime.timedelta(0)
    assert abs((datetime.datetime.now(datetime.UTC) - when).total_seconds()) < 60
    assert row["versions"]["jax"] == jax.__version__
    assert row["versions"]["numpy"] == np.__version__
    assert {"python", "jaxlib", "haiku", "optax", "orbax", "grain", "tfds"} <= {
        name for name, version in row["versions"].items() if version
    }
    assert row["hosts"] == 1
    assert row["devices"] == {"platform": "cpu", "kind": "cpu", "count": 8}
    assert row["environment"]["XLA_FLAGS"] == os.environ["XLA_FLAGS"]
    assert row["environment"]["JAX_ANYTHING"] == "1"
    assert "not to be told" not in json.dumps(row)


def test_starts_are_appended(tmp_path):
    for seed in range(3):
        provenance.append(tmp_path, [f"--config.seed={seed}"])
    assert [row["command"] for row in provenance.read(tmp_path)] == [
        ["--config.seed=0"],
        ["--config.seed=1"],
        ["--config.seed=2"],
    ]


def test_a_clean_checkout(tmp_path, repository):
    row = provenance.append(tmp_path / "run", [])
    assert row["code"] == {
        "revision": git(repository, "rev-parse", "HEAD").decode().strip(),
        "dirty": False,
        "patch": None,
        "untracked": [],
    }
    assert not (tmp_path / "run" / "starts").exists()


def test_changes_are_kept_as_a_patch_that_applies(tmp_path, repository):
    (repository / "code.py").write_text("x = 2\n")
    (repository / "new.py").write_text("y = 1\n")
    run = tmp_path / "run"
    first = provenance.append(run, [])["code"]
    assert first["dirty"]
    assert first["untracked"] == ["new.py"]
    assert first["patch"] == "starts/1.patch"
    assert provenance.append(run, [])["code"]["patch"] == "starts/1.patch"  # the same code again
    (repository / "code.py").write_text("x = 3\n")
    assert provenance.append(run, [])["code"]["patch"] == "starts/2.patch"

    again = tmp_path / "again"
    git(tmp_path, "clone", "--quiet", str(repository), str(again))
    git(again, "checkout", "--quiet", first["revision"])
    git(again, "apply", str(run / first["patch"]))
    assert (again / "code.py").read_text() == "x = 2\n"


def test_a_huge_patch_is_left_out_and_told(tmp_path, repository):
    (repository / "code.py").write_text("#" * (provenance.MAX_PATCH_BYTES + 1))
    code = provenance.append(tmp_path / "run", [])["code"]
    assert code["patch"].startswith("left out: 1,04")
    assert not (tmp_path / "run" / "starts").exists()


def test_a_repository_around_the_code_is_not_its_own(tmp_path, repository, monkeypatch):
    inner = repository / "unpacked"
    inner.mkdir()
    monkeypatch.setattr(provenance, "_ROOT", inner)
    assert provenance.append(tmp_path / "run", [])["code"]["revision"] is None
    monkeypatch.setenv(provenance.REVISION, "abc")
    assert provenance.append(tmp_path / "run", [])["code"]["revision"] == "abc"


def test_without_git_it_is_null(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(provenance.REVISION, raising=False)
    row = provenance.append(tmp_path / "run", WORDS)
    assert row["code"] == {"revision": None, "dirty": None, "patch": None, "untracked": None}
    assert provenance.read(tmp_path / "run") == [row]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, caplog):
    (tmp_path / "run").write_text("a file where the folder should be")
    assert provenance.append(tmp_path / "run", WORDS)["command"] == WORDS
    assert "cannot record this start" in caplog.text


def test_a_line_cut_short_is_passed_over(tmp_path):
    provenance.append(tmp_path, WORDS)
    with (tmp_path / provenance.STARTS).open("ab") as file:
        file.write(b'{"time": "20')
    assert len(provenance.read(tmp_path)) == 1
    provenance.append(tmp_path, WORDS)
    assert len(provenance.read(tmp_path)) == 2
    with pytest.raises(FileNotFoundError, match="--workdir of a run"):
        provenance.read(tmp_path / "nowhere")


def test_a_run_is_repeated_from_its_folder_alone(trained, tmp_path, monkeypatch):
    """The resolved config of one run, trained again elsewhere, gives the same bits."""
    monkeypatch.setattr(loop, "_finish", lambda *_: None)  # the picture and the curves
    loop.run(workdir.read(trained("classification")), tmp_path / "again")
    runs.assert_same_run(tmp_path / "again", trained("classification"))
