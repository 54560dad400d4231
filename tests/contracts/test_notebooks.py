"""Every notebook is stored without outputs, agrees with its script, and runs from top to bottom."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import jupytext
import nbformat
import pytest

NOTEBOOKS = pathlib.Path(__file__).resolve().parents[2] / "notebooks"
ALL = sorted(NOTEBOOKS.glob("*.ipynb"))
SCRIPTS = sorted(NOTEBOOKS.glob("*.py"))
SECONDS = 900  # for one notebook, which runs in its small form under CI=1

each_notebook = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)


def test_the_quickstart_is_among_them():
    assert NOTEBOOKS / "00_quickstart.ipynb" in ALL


@each_notebook
def test_it_is_valid_and_no_outputs_are_stored(path):
    notebook = json.loads(path.read_text())
    nbformat.validate(notebook)
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert cells
    assert [c["source"] for c in cells if c["outputs"] or c["execution_count"] is not None] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_what_its_notebook_says(script):
    notebook = script.with_suffix(".ipynb")
    assert notebook in ALL, f"write it with `jupytext --to ipynb {script.name}`"
    pair = [[(c.cell_type, c.source) for c in jupytext.read(p).cells] for p in (script, notebook)]
    assert pair[0] == pair[1], f"make them agree with `jupytext --sync {notebook.name}`"


@each_notebook
def test_its_code_compiles_and_finds_what_it_imports(path):
    cells = [c for c in nbformat.read(path, nbformat.NO_CONVERT).cells if c.cell_type == "code"]
    for cell in cells:
        code = [line for line in cell.source.splitlines() if not line.startswith(("%", "!"))]
        tree = ast.parse("\n".join(code))
        compile(tree, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(ast.unparse(node), {})


@pytest.mark.slow  # the library's own tests see at once what it would break here
@each_notebook
def test_it_runs(path):
    # A process of its own: a notebook's kernel and its event loop warn about themselves.
    command = [sys.executable, "-m", "jupyter", "execute", "--kernel_name=python3"]
    done = subprocess.run(
        [*command, path.name],
        cwd=path.parent,
        env=os.environ | {"CI": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
