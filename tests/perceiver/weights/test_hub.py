"""Released names: what they stand for, and what is said where there is no network."""

import io
import pathlib
import sys
import urllib.error
import urllib.request

import pytest

from perceiver.kinds import released
from perceiver.weights import hub


def test_each_name_of_a_model_finds_it():
    assert {m.spec for m in hub.MODELS} <= released.MODELS.keys()
    for model in hub.MODELS:
        assert all(hub.find(name) is model for name in model)
    assert hub.find("bert-base") is None
    with pytest.raises(ValueError, match=r"'bert-base' is not a released model(.|\n)*optical-flow"):
        hub.fetch("bert-base")


class Reply(io.BytesIO):
    """What urlopen gives."""

    def __init__(self, data, length):
        super().__init__(data)
        self.headers = {"Content-Length": str(length)}


def test_a_file_is_fetched_once(monkeypatch, tmp_path):
    urls = []

    def serve(url, timeout):
        urls.append(url)
        return Reply(b"weights", 7)

    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", serve)
    first, second = hub.fetch("optical-flow"), hub.fetch("optical_flow_checkpoint.pystate")
    assert first == second == tmp_path / "optical_flow_checkpoint.pystate"
    assert first.read_bytes() == b"weights"
    assert urls == ["https://storage.googleapis.com/perceiver_io/optical_flow_checkpoint.pystate"]


def test_half_a_file_is_no_file(monkeypatch, tmp_path):
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Reply(b"weig", 7))
    with pytest.raises(ConnectionError, match="4 of 7 bytes arrived"):
        hub.fetch("optical-flow")
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_remedy_is_named(monkeypatch, tmp_path):
    def refuse(url, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(
        ConnectionError,
        match=r"no route to host.*download it on a machine with network access and load it by its",
    ):
        hub.fetch("masked-lm-bytes")


class Hub:
    """What is used of huggingface_hub: a repository, reachable or not, and a cache."""

    def __init__(self, files, cache=None):
        self.files, self.cache, self.asked = files, cache, None

    def HfApi(self):  # noqa: N802
        return self

    def list_repo_files(self, repository):
        if self.files is None:
            raise OSError("cannot connect")
        return self.files

    def snapshot_download(self, repository, *, allow_patterns=None, local_files_only=False):
        if local_files_only:
            if self.cache is None:
                raise OSError("not cached")
            return self.cache
        self.asked = (repository, allow_patterns)
        return "/snapshot"


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], "*.safetensors"),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin"),
    ],
)
def test_a_repository_is_fetched_by_its_library(files, weights, monkeypatch):
    library = Hub(files)
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    assert hub.fetch("deepmind/language-perceiver") == pathlib.Path("/snapshot")
    assert library.asked == ("deepmind/language-perceiver", ["*.json", weights])


def test_without_a_network_a_repository_comes_from_the_cache_or_not_at_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(None, cache="/cached"))
    assert hub.fetch("deepmind/optical-flow-perceiver") == pathlib.Path("/cached")
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(None))
    with pytest.raises(ConnectionError, match=r"cannot connect.*optical_flow_checkpoint\.pystate"):
        hub.fetch("deepmind/optical-flow-perceiver")
