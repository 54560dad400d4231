"""What README.md and the pages of docs/ say about the tree, the commands and the library is true.

Blocks marked `python` run as they stand; blocks marked `py` need a network and are only compiled.
Within backticks and code blocks, every `make TARGET`, `python -m MODULE`, `configs/NAME.py` and
every path that begins with a folder of the repository exists. Links between files, and to headings,
lead somewhere.
"""

import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README_LINES = 200
FOLDERS = (
    "benchmarks|configs|data|docs|experiments|launch|notebooks|perceiver|requirements|tests|train"
)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(text: str, language: str = "[a-z]*") -> list[str]:
    """The insides of fenced code blocks."""
    return re.findall(rf"^```(?:{language})$\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


PYTHON = [
    (page, number)
    for page in PAGES
    for number in range(len(blocks(page.read_text(encoding="utf-8"), "python")))
]


def prose(text: str) -> str:
    """The text without its fenced code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def read_code(page: pathlib.Path) -> str:
    """Everything between backticks: fenced blocks and inline code, which may be wrapped."""
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`([^`]+)`", prose(text))
    return "\n".join([*blocks(text), *(" ".join(code.split()) for code in inline)])


def headings(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs and GitHub make them."""
    lines = re.findall(r"^#+ (.*)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", line.lower()) for line in lines]
    return {re.sub(r"\s+", "-", word.strip()) for word in words}


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_the_readme_names_every_folder_at_the_top():
    text = README.read_text(encoding="utf-8")
    assert [name for name in FOLDERS.split("|") if f"`{name}/`" not in text] == []


@each_page
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", read_code(page))) - targets == set()


@each_page
def test_modules_to_run_exist(page):
    for module in set(re.findall(r"python[\d.]* -m ([\w.]+)", read_code(page))):
        if module.endswith(".NAME"):  # any of a folder
            module = module.removesuffix(".NAME")
            assert (ROOT / module / "__init__.py").is_file(), module
            continue
        if not (ROOT / module.split(".")[0]).is_dir():
            assert importlib.util.find_spec(module) is not None, module
            continue
        path = ROOT.joinpath(*module.split("."))  # a package is runnable through its __main__
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


@each_page
def test_paths_exist(page):
    named = set(re.findall(rf"(?<![\w./:-])(?:{FOLDERS})/[\w./*-]*", read_code(page)))
    assert sorted(path for path in named if not any(ROOT.glob(path.rstrip("/.")))) == []


@each_page
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8")))
    broken = []
    for target in targets:
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in headings(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize(("page", "number"), PYTHON, ids=lambda x: getattr(x, "stem", str(x)))
def test_python_runs(page, number):
    block = blocks(page.read_text(encoding="utf-8"), "python")[number]
    exec(compile(block, str(page), "exec"), {"__name__": page.stem})


@each_page
def test_python_that_needs_a_network_compiles(page):
    for block in blocks(page.read_text(encoding="utf-8"), "py"):
        compile(block, str(page), "exec")
