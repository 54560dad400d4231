"""A run in an object store; a local folder stands in for the store, with URLs for its paths."""

import pathlib
import types

import pytest

import train.loop
from tests.train import runs
from tests.train.runs import small
from train.checkpoint import remote_folder
from train.checkpoint.remote_folder import RemoteFolder
from train.guard import preemption
from train.guard.preemption import Preempted
from train.report.metrics_log import read

pytestmark = pytest.mark.usefixtures("_shared_programs")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder that `gs://bucket` names; checkpoints are in it as the paths of a local folder."""
    root = tmp_path / "store"

    def of(path):
        return root / str(path).removeprefix("gs://bucket/")

    def is_remote(path):
        return path.is_relative_to(root)

    monkeypatch.setattr(remote_folder, "folders", types.SimpleNamespace(of=of, is_remote=is_remote))
    return root


def test_only_what_has_changed_is_copied(store, monkeypatch):
    with RemoteFolder("gs://bucket/run") as local:
        (local.folder / "starts").mkdir()
        (local.folder / "starts" / "1.patch").write_text("one")
        (local.folder / "metrics.jsonl").write_text("a\n")
        local.push()
        written = []
        write = pathlib.Path.write_bytes
        monkeypatch.setattr(
            pathlib.Path, "write_bytes", lambda self, x: written.append(self.name) or write(self, x)
        )
        local.push()
        assert written == []
        (local.folder / "metrics.jsonl").write_text("a\nb\n")
    assert written == ["metrics.jsonl"]
    assert not local.folder.exists()
    assert (store / "run/metrics.jsonl").read_text() == "a\nb\n"
    assert (store / "run/starts/1.patch").read_text() == "one"


def test_the_next_life_has_what_the_store_has_but_for_checkpoints(store):
    (store / "run/checkpoints/7/state").mkdir(parents=True)
    (store / "run/checkpoints/7/state/array").write_text("large")
    (store / "run/model").mkdir()
    (store / "run/model/config.json").write_text("{}")
    with RemoteFolder("gs://bucket/run", write=False) as local:
        assert local.checkpoints == store / "run/checkpoints"
        names = [p.relative_to(local.folder).as_posix() for p in local.folder.rglob("*")]
        assert sorted(names) == ["model", "model/config.json"]
        (local.folder / "new").write_text("of another host")
    assert not (store / "run/new").exists()


def test_a_local_folder_is_its_own_mirror(tmp_path):
    with RemoteFolder(tmp_path / "run") as local:
        assert local.folder == tmp_path / "run"
        assert local.checkpoints == tmp_path / "run/checkpoints"
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_a_store_is_told_to_stop_and_goes_on(store, trained, monkeypatch):
    whole = trained("classification")
    with monkeypatch.context() as patch:
        patch.setattr(preemption.Preemption, "should_stop", lambda self, step: step == 3)
        with pytest.raises(Preempted):
            train.loop.run(small(), "gs://bucket/run")
    assert len(read(store / "run/metrics.jsonl")) == 1
    assert train.loop.run(small(), "gs://bucket/run") == runs.results(whole)
    runs.assert_same_run(store / "run", whole)
    model = "model/model.safetensors"
    assert (store / "run" / model).read_bytes() == (whole / model).read_bytes()
    assert len((store / "run/starts.jsonl").read_text().splitlines()) == 2
