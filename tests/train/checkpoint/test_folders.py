import pathlib
import sys

import pytest

from train.checkpoint import checkpoint, folders


def test_a_local_folder_is_a_path_of_pathlib(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folders.of("runs/x") == tmp_path / "runs" / "x"
    assert isinstance(folders.of(tmp_path), pathlib.Path)
    assert not folders.is_remote(folders.of("runs"))


def test_files_are_listed_by_name_and_folders_removed(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("c", "b/z", "b/a"):
        (tmp_path / name).write_text(name)
    assert [name for name, _ in folders.files(tmp_path)] == ["b/a", "b/z", "c"]
    assert all(path.read_text() == name for name, path in folders.files(tmp_path))
    folders.remove(tmp_path / "b")
    folders.remove(tmp_path / "b")  # gone already
    assert [name for name, _ in folders.files(tmp_path)] == ["c"]


@pytest.mark.parametrize(("url", "package"), [("gs://a/b", "gcsfs"), ("s3://a/b", "s3fs")])
def test_a_missing_package_is_named(monkeypatch, url, package):
    for hidden in (package, "tensorflow"):
        monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {package}"):
        folders.of(url)


def test_a_url_keeps_its_scheme(monkeypatch):
    monkeypatch.setattr(folders, "_is_installed", lambda package: True)
    folder = folders.of("gs://bucket/runs/x")
    assert str(folder / "config.json") == "gs://bucket/runs/x/config.json"
    assert folders.is_remote(folder)


def test_unknown_storage_and_what_orbax_cannot_write_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"unknown storage ftp://; use a local folder, or one of"):
        folders.of("ftp://host/x")
    monkeypatch.setattr(folders, "_is_installed", lambda package: True)
    with pytest.raises(ValueError, match=r"s3://b/x: Orbax writes to local folders and gs://"):
        checkpoint.Checkpoints("s3://b/x")
