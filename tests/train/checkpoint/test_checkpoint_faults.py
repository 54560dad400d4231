"""What may happen to checkpoints, injected: the run loses nothing that was saved, and is told.

Flipped, cut and missing files are in test_checkpoint.py, killed saves in test_killed_save.py.
"""

import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train import runs
from train.checkpoint import array_files, integrity, saving
from train.checkpoint import checkpoint as checkpoint_lib

ROOT = pathlib.Path(__file__).parents[3]
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def _state(step):
    return {"w": jnp.arange(5_000.0) + step, "step": jnp.int32(step)}


ABSTRACT = {
    "w": jax.ShapeDtypeStruct((5_000,), jnp.float32),
    "step": jax.ShapeDtypeStruct((), jnp.int32),
}


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 10, 20 and 30."""
    with checkpoint_lib.Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, _state(step), {"batches": step}, {})
    return checkpoints.folder


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def _run(way, folder, before=()):
    script = [sys.executable, str(ROOT / "tests" / "train" / "full_disk.py"), way, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*before, *script], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["told"]) == 2
    for step, words in zip((2, 3), found["told"], strict=True):
        assert f"checkpoint of step {step} could not be saved in {folder}/checkpoints" in words
        assert "The checkpoint of step 1 is still good" in words
    assert found["during"] == ["1"]  # what was begun is gone, what was good is there
    assert found["after"] == ["1", "4"]
    assert found["same"]
    return found["told"][0]


def test_a_full_disk_loses_nothing_and_saving_goes_on_when_there_is_room(tmp_path):
    mount = f"mount -t tmpfs -o size=8m tmpfs {tmp_path}"
    probe = [*NAMESPACE, "sh", "-c", mount]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("a disk of 8 MiB cannot be mounted here; the limit on files is tested below")
    told = _run("ballast", tmp_path, [*NAMESPACE, "sh", "-c", f'{mount} && exec "$@"', "sh"])
    assert "No space left on device" in told
    assert "Make room: delete old runs, or lower train.keep" in told


def test_a_limit_on_files_is_like_a_full_disk(tmp_path):
    assert "ulimit -f" in _run("limit", tmp_path)


def test_a_folder_that_may_not_be_written_is_told():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may not even be looked into
        pathlib.Path(folder).chmod(0o755)
        told = _run("rights", folder)
    assert "ermission denied" in told
    assert "Make the folder writable" in told


def test_a_disk_that_gives_back_something_else_is_found_before_older_ones_go(tmp_path, monkeypatch):
    seal = integrity.seal

    def seal_after_a_flip(path):
        array = max(path.glob("state/**/d/*"), key=lambda file: file.stat().st_size)
        content = bytearray(array.read_bytes())
        content[len(content) // 2] ^= 4
        array.write_bytes(content)
        seal(path)  # the checksums agree with the flipped bit

    with checkpoint_lib.Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, _state(1), None, None)
        checkpoints.wait()
        monkeypatch.setattr(integrity, "seal", seal_after_a_flip)
        checkpoints.save(2, _state(2), None, None)
        with pytest.raises(checkpoint_lib.SaveError, match=r"w does not read back as it was writ"):
            checkpoints.wait()
        assert _names(tmp_path) == ["1"]
        checkpoints.wait()  # told once
        monkeypatch.undo()
        assert checkpoints.save(2, _state(2), None, None)
        checkpoints.wait()
        assert _names(tmp_path) == ["2"]


@pytest.mark.parametrize("stage", ["write", "merge", "seal", "compare", "rename"])
def test_a_failure_at_any_stage_is_told_by_the_next_save(tmp_path, monkeypatch, stage):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    where = {
        "write": (array_files, "write"),
        "merge": (array_files, "merge"),
        "seal": (integrity, "seal"),
        "compare": (array_files, "find_change"),
        "rename": (pathlib.Path, "rename"),
    }[stage]
    with checkpoint_lib.Checkpoints(tmp_path) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(*where, fail)
            checkpoints.save(1, _state(1), None, None)
            with pytest.raises(checkpoint_lib.SaveError, match="No space left") as error:
                checkpoints.save(2, _state(2), None, None)
        assert "step 1 could not be saved" in str(error.value)
        assert "There is none yet" in str(error.value)
        assert _names(tmp_path) == []
        assert checkpoints.save(2, _state(2), None, None)
    assert _names(tmp_path) == ["2"]


def test_a_failed_last_save_does_not_hide_what_ended_the_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
    monkeypatch.setattr(array_files, "merge", lambda folder: 1 / 0)

    def begin(then):
        with checkpoint_lib.Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, _state(1), None, None)
            then()

    with pytest.raises(KeyError, match="the news"):
        begin(lambda: {}["the news"])
    assert "step 1 could not be saved" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(checkpoint_lib.SaveError):
        begin(lambda: None)


def test_arrays_that_arrive_changed_are_passed_over(folder, monkeypatch):
    read = array_files.read

    def read_with_a_fault(path, wanted):
        arrays = read(path, wanted)
        if path.parent.name == "30":
            arrays["w"] = arrays["w"].at[77].add(1)
        return arrays

    monkeypatch.setattr(array_files, "read", read_with_a_fault)
    with checkpoint_lib.Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(ABSTRACT).step == 20
        ((path, reason),) = checkpoints.damaged
        assert (path, reason) == (folder / "30", "w is not what was saved, though its files are")
    assert _names(folder) == ["10", "20", "30.damaged"]


def test_a_step_that_was_deleted_is_saved_again(folder):
    shutil.rmtree(folder / "30")
    with checkpoint_lib.Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(ABSTRACT).step == 20
        assert checkpoints.damaged == []
        assert checkpoints.save(30, _state(30), None, None)
        assert not checkpoints.save(20, _state(20), None, None)
    assert _names(folder) == ["10", "20", "30"]


def test_what_is_not_ours_stays_and_harms_nothing(folder):
    (folder / "50").write_text("a file, not a folder")
    (folder / "040").mkdir()
    (folder / "notes").mkdir()
    (folder / "latest").symlink_to("30")
    (folder / "60").mkdir()  # might be a checkpoint, but has no checksums
    with checkpoint_lib.Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.restore(ABSTRACT).step == 30
        assert [damage.path.name for damage in checkpoints.damaged] == ["60"]
        checkpoints.save(70, _state(70), None, None)
    assert _names(folder) == ["040", "30", "50", "60.damaged", "70", "latest", "notes"]


def test_an_empty_folder_is_a_fresh_start(tmp_path):
    with checkpoint_lib.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(ABSTRACT) is None
        assert checkpoints.steps() == checkpoints.damaged == []


def test_a_file_that_cannot_be_read_is_damage(folder):
    run = folder / "30" / saving.RUN
    run.unlink()
    run.mkdir()  # root may read any file, but none that is a folder
    with checkpoint_lib.Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(ABSTRACT).step == 20
        assert "run/metadata cannot be read" in checkpoints.damaged[0].reason


def test_an_old_one_that_cannot_be_removed_is_a_warning(folder, monkeypatch, caplog):
    def fail(path):
        raise PermissionError(f"{path} is held")

    monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
    monkeypatch.setattr(saving, "remove", fail)
    with checkpoint_lib.Checkpoints(folder) as checkpoints:
        checkpoints.save(40, _state(40), None, None)
    assert "cannot remove the old checkpoint of step 10" in caplog.text
    assert _names(folder) == ["10", "20", "30", "40"]


def test_a_removal_that_is_killed_leaves_nothing_that_counts(folder, monkeypatch):
    monkeypatch.setattr(saving.folders, "remove", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saving.remove(folder / "10")
    monkeypatch.undo()
    with checkpoint_lib.Checkpoints(folder) as checkpoints:
        assert checkpoints.steps() == [20, 30]
    assert _names(folder) == ["20", "30"]


def test_multiples_are_kept_for_ever(tmp_path):
    with checkpoint_lib.Checkpoints(tmp_path, keep=2, keep_every=30) as checkpoints:
        for step in range(10, 100, 10):
            checkpoints.save(step, _state(step), None, None)
        checkpoints.wait()
        assert checkpoints.steps() == [30, 60, 80, 90]
    with pytest.raises(ValueError, match="keep_every must be a number of steps, or 0, got -1"):
        checkpoint_lib.Checkpoints(tmp_path, keep_every=-1)


def test_all_hosts_learn_that_one_has_failed(tmp_path):
    port, environment = runs.free_port(), runs.of_a_process(devices=2)
    script = str(ROOT / "tests" / "train" / "failing_host.py")
    children = [
        subprocess.Popen(
            [sys.executable, script, str(port), str(index), str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        outputs = [child.communicate(timeout=240)[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    assert found[0]["told"] == found[1]["told"]
    rights, room, lock = found[0]["told"]
    assert "step 2" in rights
    assert "Permission denied (host 1)" in rights
    assert "step 3" in room
    assert "No space left on device (host 1)" in room
    assert "step 4" in lock
    assert "Read-only file system (host 0)" in lock
    for each in found:
        assert each["steps"] == [1, 5]
        assert each["same"]
        assert each["seconds"] < 60  # nobody waited for what would not come
    assert _names(tmp_path) == ["1", "5"]
    x = jax.ShapeDtypeStruct((4096,), jnp.float32)
    with checkpoint_lib.Checkpoints(tmp_path, read_only=True) as checkpoints:
        restored = checkpoints.restore({"x": x})
    np.testing.assert_array_equal(restored.state["x"], np.arange(4096.0) + 5)
