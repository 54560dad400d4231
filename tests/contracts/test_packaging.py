"""What is shipped: a wheel with `perceiver` and nothing else, and pinned sets that cover it."""

import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import perceiver

ROOT = pathlib.Path(__file__).resolve().parents[2]
PINNED = {"py311": "0.10.2", "py312": "0.12.0.1"}  # pinned set -> its jax
EXTRAS = {
    "beam",
    "cuda",
    "datasets",
    "docs",
    "hub",
    "media",
    "notebooks",
    "parity",
    "prepare",
    "search",
    "subwords",
    "test",
    "text",
    "tpu",
    "train",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel, opened; made from a copy, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("perceiver", "data", "train", "configs", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--disable-pip-version-check", "--wheel-dir", str(folder)]
    built = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
    """The lines of the wheel's METADATA above the description."""
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return wheel.read(name).decode().split("\n\n")[0].splitlines()


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(metadata: list[str]) -> dict[str, set[str]]:
    """Extra ("" for the core) -> the distributions it requires."""
    found = {}
    for line in metadata:
        if match := re.match(r"Requires-Dist: ([\w.-]+)(.*)", line):
            extra = re.search(r"extra == ['\"](\w+)['\"]", match[2])
            found.setdefault(extra[1] if extra else "", set()).add(normal(match[1]))
    return found


_PIN = r"[\w.-]+==[\w.]+"
# What TensorFlow brings is installed where it exists only.
_WHERE = r"; sys_platform == \"linux\" and python_version < \"3\.14\""


def pins(name: str) -> dict[str, str]:
    """Distribution -> version of one pinned set."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    pairs = [
        line.partition(";")[0].split("==") for line in lines if line and not line.startswith("#")
    ]
    return {normal(name): version for name, version in pairs}


def test_the_wheel_holds_perceiver_only(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"perceiver", f"perceiver-{perceiver.__version__}.dist-info"}


def test_the_wheel_holds_every_module_and_its_types(wheel):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "perceiver").rglob("*.py")}
    shipped = {name for name in wheel.namelist() if name.startswith("perceiver/")}
    names = {
        f"perceiver/media/labels/{name}.txt" for name in ("audioset", "imagenet", "kinetics700")
    }
    assert shipped == modules | names | {"perceiver/py.typed"}


def test_the_wheel_names_its_licence_and_python(wheel, metadata):
    assert "License-File: LICENSE" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())


def test_the_core_is_light(metadata):
    core = {"dm-haiku", "jax", "jaxlib", "numpy", "pillow", "safetensors"}
    assert requirements(metadata)[""] == core


def test_the_extras_are_those_promised(metadata):
    provided = {line.split(": ")[1] for line in metadata if line.startswith("Provides-Extra: ")}
    assert provided == EXTRAS


@pytest.mark.parametrize(("name", "jax"), PINNED.items())
def test_pins_hold_the_promised_jax(name, jax):
    assert pins(name)["jax"] == pins(name)["jaxlib"] == jax


@pytest.mark.parametrize("name", PINNED)
def test_pins_cover_what_a_checkout_requires(name, metadata):
    required = requirements(metadata)
    wanted = set().union(*(required[e] for e in ("", "train", "notebooks", "test")))
    base, added = pins(name).keys(), pins(f"{name}-prepare").keys()
    assert wanted <= base
    # On Linux tensorflow-cpu takes the place of tensorflow.
    assert required["prepare"] - base - added == {"tensorflow"}
    assert not base & added
    assert "tensorflow-cpu" in added  # half of the download, for the tests only


@pytest.mark.parametrize("name", PINNED)
@pytest.mark.parametrize("part", ["", "-prepare"])
def test_pins_are_exact_and_sorted(name, part):
    lines = (ROOT / "requirements" / f"{name}{part}.txt").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    pattern = _PIN + (_WHERE if part else "")
    assert [line for line in lines if not re.fullmatch(pattern, line)] == []
    assert lines == sorted(lines, key=str.lower)
