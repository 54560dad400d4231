"""A stage of stub programs for each test of a launcher.

The launchers are the real ones; `ssh`, `srun`, `scontrol`, `gcloud` and `kubectl` are stubs that
run on this machine what another would. How the real ones behave is known from their documentation
only.
"""

import shutil
import subprocess

import pytest

from tests.launch.stage import ROOT, SSH_STUB, Stage


def _git(folder, *words):
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    command = ["git", *who, "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """This folder where it is a git checkout; where it is not, one of what launchers need of it."""
    if shutil.which("git") is None:
        return ROOT
    if _git(ROOT, "rev-parse", "--verify", "HEAD").returncode == 0 and (ROOT / ".git").exists():
        return ROOT
    root = tmp_path_factory.mktemp("checkout") / "perceiver"
    for name in ("launch", "requirements", "train"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all of it"]):
        done = _git(root, *words)
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def stage(tmp_path, checkout):
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    stage = Stage(tmp_path / "stage", checkout)
    stage.program("ssh", SSH_STUB)
    return stage
