"""Released names: what they stand for, and what is said where there is no network."""

import io
import urllib.error
import urllib.request

import pytest

from perceiver import hub, released


def test_each_name_of_a_model_finds_it():
    assert {m.spec for m in hub.MODELS} <= released.MODELS.keys()
    for model in hub.MODELS:
        assert all(hub.find(name) is model for name in model)
    assert hub.find("bert-base") is None
    with pytest.raises(ValueError, match=r"'bert-base' is no released model(.|\n)*optical-flow"):
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
    with pytest.raises(ConnectionError, match=r"no route to host.*download it and load it by its"):
        hub.fetch("masked-lm-bytes")
