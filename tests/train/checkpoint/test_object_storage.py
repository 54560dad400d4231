"""Checkpoints where nothing can be renamed in one go: they count when their checksums are there.

The last test needs `pip install gcsfs gcp-storage-emulator`, and is skipped without.
"""

import importlib.util
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from train.checkpoint import checkpoint, folders, integrity, saving

ROOT = pathlib.Path(__file__).parents[3]
ABSTRACT = {"x": jax.ShapeDtypeStruct((500,), jnp.float32)}

# The same against an emulator of Google's storage, by the clients that real buckets are used by.
SCRIPT = """
import os, sys
sys.modules["tensorflow"] = None  # epath would take its client, which knows no emulators
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket")
server.start()
try:
    import jax, jax.numpy as jnp
    from train.checkpoint import checkpoint, folders
    folder = folders.of("gs://bucket/run/checkpoints")
    shape = {"x": jax.ShapeDtypeStruct((5000,), jnp.float32)}
    with checkpoint.Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.restore(shape) is None
        for step in (1, 2, 3):
            checkpoints.save(step, {"x": jnp.arange(5000.0) + step}, step, {})
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3]
    (folder / "9" / "state").mkdir(parents=True)
    (folder / "9" / "state" / "half").write_text("half")
    arrays = [path for name, path in folders.files(folder / "3") if "/d/" in name]
    content = bytearray(arrays[0].read_bytes())
    content[len(content) // 2] ^= 1
    arrays[0].write_bytes(bytes(content))
    with checkpoint.Checkpoints(folder, read_only=True) as checkpoints:
        restored = checkpoints.restore(shape)
        assert restored.step == 2 and restored.data_state == 2
        assert (restored.state["x"] == jnp.arange(5000.0) + 2).all()
        assert [damage.path.name for damage in checkpoints.damaged] == ["3"]
    with checkpoint.Checkpoints(folder) as checkpoints:
        assert {path.name for path in folder.iterdir()} == {"2", "3"}
finally:
    server.stop()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A local folder that is taken for one in object storage."""
    monkeypatch.setattr(folders, "of", epath.Path)
    folder = epath.Path(tmp_path / "checkpoints")
    assert folders.is_remote(folder)
    return folder


def _save(folder, *steps, **options):
    with checkpoint.Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"x": jnp.arange(500.0) + step}, step, {})


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_values_come_back_and_old_ones_go(folder):
    _save(folder, 1, 2, 3, keep=2)
    assert _names(folder) == ["2", "3"]
    with checkpoint.Checkpoints(folder) as checkpoints:
        restored = checkpoints.restore(ABSTRACT)
    assert restored.step == restored.data_state == 3
    np.testing.assert_array_equal(restored.state["x"], np.arange(500.0) + 3)


def test_nothing_is_renamed_and_the_checksums_come_last(folder, monkeypatch):
    seal, states = integrity.seal, []

    def look_and_seal(path):
        assert path == folder / "1"
        with checkpoint.Checkpoints(folder, read_only=True) as reader:
            states.append((reader.steps(), reader.restore(ABSTRACT)))
        seal(path)

    monkeypatch.setattr(integrity, "seal", look_and_seal)
    monkeypatch.setattr(type(folder), "rename", lambda *_: 1 / 0)
    _save(folder, 1)
    assert states == [([], None)]
    assert _names(folder) == ["1"]


def test_what_a_killed_save_left_never_counts_and_goes(folder):
    _save(folder, 1, 2)
    (folder / "2" / integrity.CHECKSUMS).unlink()
    with checkpoint.Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.steps() == [1]
        assert checkpoints.restore(ABSTRACT).step == 1
        assert checkpoints.damaged == []
    assert _names(folder) == ["1", "2"]
    with checkpoint.Checkpoints(folder) as checkpoints:
        assert _names(folder) == ["1"]
        assert checkpoints.save(2, {"x": jnp.zeros(500)}, 2, {})
    assert _names(folder) == ["1", "2"]


def test_a_removal_takes_the_checksums_first(folder, monkeypatch):
    _save(folder, 1, 2)
    monkeypatch.setattr(folders, "remove", lambda path: None)
    saving.remove(folder / "1")
    with checkpoint.Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.steps() == [2]


def test_damage_is_passed_over(folder):
    _save(folder, 1, 2)
    (folder / "2" / saving.RUN).write_text("{}")
    with checkpoint.Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(ABSTRACT).step == 1
        assert checkpoints.damaged[0].reason.startswith("run/metadata has 2 bytes")
    assert _names(folder) == ["1", "2.damaged"]


@pytest.mark.slow
def test_in_a_bucket_of_an_emulator():
    if not all(map(importlib.util.find_spec, ("gcsfs", "gcp_storage_emulator"))):
        pytest.skip("pip install gcsfs gcp-storage-emulator")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GCE_METADATA_ROOT": "127.0.0.1:1",  # nobody is asked for credentials
        "NO_GCE_CHECK": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(port)],
        env=os.environ | environment | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
