"""What the README says about the tree and the commands is true.

The map. README.md has a section `## Map` whose lines each begin, after an optional list or table
mark (`- `, `* `, `| `), with one path in backticks; the rest of the line is free text:

    - `perceiver/model/encoder.py` latents and the cross-attend that fills them
    | `perceiver/inputs/` | raw arrays to byte arrays |

A folder ends in a slash. The map must name
  * every top-level folder of the checkout, hidden ones and what git ignores left out;
  * in `perceiver`, `data`, `train` and `configs`: every module by its own line (`__init__.py` may
    be left out) and every sub-folder by its own line, which then stands for all that is in it;
and nothing that does not exist.

The Python. Blocks marked `python` run as they stand; those marked `py` need a network.

The commands. Every `make TARGET`, `python -m MODULE` and `configs/NAME.py` within backticks or a
code block exists, and `make quickstart` and `make test` are among them.
"""

import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("perceiver", "data", "train", "configs")
# Made by building, testing and training; git ignores them.
PRODUCTS = {"build", "dist", "runs"}


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def read_map(text: str) -> list[str]:
    """The paths of the section `## Map`, in order."""
    section = re.search(r"^## Map$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None:
        raise ValueError("README.md has no section `## Map`")
    return re.findall(r"^\s*(?:[-*|]\s+)?`([^`]+)`", section[1], re.MULTILINE)


def expected_paths(root: pathlib.Path) -> set[str]:
    """What the map has to name: top-level folders, and each package's modules and sub-folders."""
    expected = {
        f"{path.name}/"
        for path in root.iterdir()
        if path.is_dir()
        and not path.name.startswith((".", "_"))
        and not path.name.endswith(".egg-info")
        and path.name not in PRODUCTS
    }
    for package in PACKAGES:
        for path in (root / package).glob("*"):
            if path.is_dir() and any(path.rglob("*.py")):
                expected.add(f"{package}/{path.name}/")
            elif path.suffix == ".py" and path.name != "__init__.py":
                expected.add(f"{package}/{path.name}")
    return expected


def read_code(text: str) -> str:
    """Everything between backticks: fenced blocks and inline code."""
    blocks = re.findall(r"^```.*?$(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(blocks + re.findall(r"`([^`]+)`", rest))


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


def test_the_map_names_only_what_exists(readme):
    wrong = [
        path
        for path in read_map(readme)
        if not ((ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file())
    ]
    assert wrong == []


def test_the_map_names_all_there_is(readme):
    assert sorted(expected_paths(ROOT) - set(read_map(readme))) == []


def test_the_map_names_nothing_twice(readme):
    paths = read_map(readme)
    assert sorted(paths) == sorted(set(paths))


def test_make_targets_exist(readme):
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", read_code(readme)))
    assert {"quickstart", "test"} <= named
    assert named - targets() == set()


def test_modules_to_run_exist(readme):
    # A package of the project is runnable only through its __main__.
    for module in set(re.findall(r"python[\d.]* -m ([\w.]+)", read_code(readme))):
        if module.split(".")[0] not in PACKAGES:
            assert importlib.util.find_spec(module) is not None, module
            continue
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_configurations_exist(readme):
    named = set(re.findall(r"\bconfigs/\w+\.py\b", read_code(readme)))
    assert {path for path in named if not (ROOT / path).is_file()} == set()


# The reading itself.


def test_the_map_is_read_from_lists_tables_and_plain_lines():
    text = (
        "# Title\n`no/such.py` is not in the map\n## Map\n\n"
        "- `a/` first, see `other.py`\n  * `a/b.py` second\n| `c/` | third |\n`d.py` fourth\n"
        "text with `e.py` inside\n### Part\n- `f.py`\n## Next\n- `g.py`\n"
    )
    assert read_map(text) == ["a/", "a/b.py", "c/", "d.py", "f.py"]


def test_a_readme_without_map_is_refused():
    with pytest.raises(ValueError, match="no section"):
        read_map("# Title\n### Map\n- `a/`\n")


def test_every_module_and_folder_is_expected(tmp_path):
    for name in (
        "perceiver/__init__.py",
        "perceiver/py.typed",
        "perceiver/model/encoder.py",
        "perceiver/inputs/image.py",
        "train/__main__.py",
        "train/__pycache__/loop.pyc",
        "notebooks/a.ipynb",
        "runs/x/config.json",
        ".venv/bin/python",
        "perceiver.egg-info/top_level.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert expected_paths(tmp_path) == {
        "perceiver/",
        "perceiver/model/encoder.py",
        "perceiver/inputs/",
        "train/",
        "train/__main__.py",
        "notebooks/",
    }


def test_code_is_read_from_blocks_and_inline():
    text = "do `make a` or make b\n```bash\nmake c\n```\nthen `make d`\n"
    assert re.findall(r"make (\w)", read_code(text)) == ["c", "a", "d"]


def test_its_python_runs(readme):
    blocks = re.findall(r"^```python$(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
