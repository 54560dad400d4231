"""A stage of stub programs for each test of a launcher.

The launchers are the real ones; `ssh`, `srun`, `scontrol`, `gcloud` and `kubectl` are stubs that
run on this machine what another would. How the real ones behave is known from their documentation
only.
"""

import shutil

import pytest

from tests.launch.stage import SSH_STUB, Stage


@pytest.fixture
def stage(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    stage = Stage(tmp_path / "stage")
    stage.program("ssh", SSH_STUB)
    return stage
