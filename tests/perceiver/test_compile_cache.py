"""Compiled programs on disk."""

import jax
import pytest

from perceiver import compile_cache


@pytest.fixture
def updates(monkeypatch):
    """What is set of JAX, without setting it."""
    found = {}
    monkeypatch.setattr(type(jax.config), "update", lambda self, name, x: found.update({name: x}))
    return found


def test_a_folder_of_ones_own(updates, tmp_path):
    assert compile_cache.enable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    assert updates["jax_compilation_cache_dir"] == str(tmp_path / "a" / "b")


def test_what_jax_is_set_to_already_stays(updates):
    folder = jax.config.jax_compilation_cache_dir  # tests/conftest.py sets it
    assert str(compile_cache.enable()) == folder == updates["jax_compilation_cache_dir"]


@pytest.mark.parametrize("error", [PermissionError("read-only"), RuntimeError("no home directory")])
def test_a_command_goes_on_without_a_folder(updates, monkeypatch, capsys, error):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(compile_cache.pathlib.Path, "mkdir", broken)
    compile_cache.enable_if_possible()
    assert f"compile cache disabled: {error}" in capsys.readouterr().err
