"""What runs on each host: one life of a run at a time."""

import shutil

import pytest

from tests.launch.stage import HOST, end
from train.guard import exit_codes


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock")
def test_a_host_runs_one_life_at_a_time(stage):
    first = stage.begin(*HOST, "--", stage.python)
    try:
        stage.await_note("words.0.0")
        code, _, errors = stage.run(*HOST, "--wait=0", "--", stage.python)
        assert code == exit_codes.HUNG
        assert "an earlier training" in errors
        assert stage.run(*HOST[:2], "--key=y", "--", "true")[0] == 0  # another run
        assert stage.run(*HOST, "--stop")[0] == 0
        first.communicate(timeout=20)
        assert first.returncode == exit_codes.PREEMPTED
        assert stage.run(*HOST, "--wait=5", "--", "sh", "-c", "exit 3")[0] == 3
        assert stage.run(*HOST, "--stop")[0] == 0  # nothing to stop
    finally:
        end(first)


def test_a_host_passes_on_output_and_errors(stage):
    code, out, errors = stage.run(*HOST, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (code, out, errors) == (7, "out\n", "err\n")


def test_a_host_without_the_environment_says_so(stage):
    code, _, errors = stage.run(*HOST, "--", ".venv-of-nobody/bin/python", "-m", "train")
    assert code == 2
    assert "launch/setup.sh" in errors
