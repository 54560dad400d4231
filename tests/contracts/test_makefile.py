"""The Makefile's promises, checked without installing anything."""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(folder: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs make in `folder` without the variables that an outer `make test` passes down."""
    skip = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PYTHON", "VENV", "ARGS"}
    environment = {name: value for name, value in os.environ.items() if name not in skip}
    return subprocess.run(
        ["make", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path):
    """A folder with what the Makefile reads and no environment."""
    for name in ("Makefile", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def fake_python(folder: pathlib.Path, version: tuple[int, int]) -> pathlib.Path:
    """An interpreter that claims a version and does nothing for `-m venv` and `-m pip`."""
    path = folder / f"python{version[0]}.{version[1]}"
    path.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        f"sys.version_info = {version}\n"
        'if sys.argv[1] == "-c":\n'
        "    exec(sys.argv[2])\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("version", "pins"),
    [((3, 11), "py311.txt"), ((3, 12), "py312.txt"), ((3, 13), "py312.txt")],
)
def test_the_pinned_set_follows_the_interpreter(checkout, version, pins):
    result = make(checkout, "venv", "--dry-run", f"PYTHON={fake_python(checkout, version)}")
    assert result.returncode == 0, result.stderr
    assert f"-r requirements/{pins}" in result.stdout


def test_only_the_tests_install_tensorflow(checkout):
    python = f"PYTHON={fake_python(checkout, (3, 11))}"
    for target, wanted in (("quickstart", False), ("test", True), ("test-all", True)):
        lines = make(checkout, target, "--dry-run", python).stdout
        assert ("-r requirements/py311-prepare.txt" in lines) == wanted


def test_an_old_python_is_refused_with_the_remedy(checkout):
    result = make(checkout, "test", f"PYTHON={fake_python(checkout, (3, 10))}")
    assert result.returncode != 0
    assert "is Python 3.10, this project needs 3.11 or newer" in result.stderr
    assert "make test PYTHON=" in result.stderr
    assert not (checkout / ".venv").exists()


def test_a_missing_python_is_named(checkout):
    result = make(checkout, "quickstart", "PYTHON=no-such-python")
    assert result.returncode != 0
    assert "'no-such-python' does not run" in result.stderr


def test_an_environment_of_another_python_is_not_used_in_silence(checkout):
    (checkout / ".venv" / "bin").mkdir(parents=True)
    fake_python(checkout, (3, 12)).rename(checkout / ".venv" / "bin" / "python")
    (checkout / ".venv" / "bin" / "pip").touch()
    result = make(checkout, "test", "--dry-run", f"PYTHON={fake_python(checkout, (3, 11))}")
    assert result.returncode != 0
    assert ".venv was made with Python 3.12" in result.stderr


def test_a_changed_pinned_set_is_installed_again(checkout):
    python = f"PYTHON={fake_python(checkout, (3, 11))}"
    stamp = checkout / ".venv" / ".installed"
    stamp.parent.mkdir()
    stamp.touch()
    for path in (checkout / "requirements" / "py311.txt", checkout / "setup.py"):
        os.utime(path, (0, 0))
    assert "pip install" not in make(checkout, "notebooks", "--dry-run", python).stdout
    (checkout / "requirements" / "py311.txt").touch()
    assert "-r requirements/py311.txt" in make(checkout, "notebooks", "--dry-run", python).stdout


def test_quickstart_trains_and_then_classifies(checkout):
    python = f"PYTHON={fake_python(checkout, (3, 11))}"
    lines = make(checkout, "quickstart", "--dry-run", python).stdout.splitlines()
    runs = [line for line in lines if not line.startswith("echo")]
    assert runs[-2:] == [
        ".venv/bin/python -m train --config=configs/digits.py --workdir=runs/quickstart",
        ".venv/bin/python -m perceiver.predict runs/quickstart runs/quickstart/samples/*.png",
    ]


def test_the_environment_can_be_put_elsewhere(checkout):
    python = f"PYTHON={fake_python(checkout, (3, 11))}"
    lines = make(checkout, "test", "--dry-run", "VENV=other", python).stdout
    assert re.search(r'^other/bin/python -m pytest -n 2 .*-m "not slow"', lines, re.MULTILINE)
    assert ".venv" not in lines
