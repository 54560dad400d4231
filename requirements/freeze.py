"""Writes a complete pinned set: every package that a checkout installs, at one version each.

Installs the library with the extras for training, notebooks and tests into a fresh temporary
environment and records what came; then what preparing data adds to it, TensorFlow above all, which
goes into a file of its own, for the tests. Only the standard library is used.

    python3.11 requirements/freeze.py --jax 0.10.2 --out requirements/py311.txt

writes requirements/py311-prepare.txt too; `make pins` writes all. Afterwards

    python3.11 requirements/freeze.py --docs --out requirements/docs.txt

writes what the documentation needs beside them: one set, which agrees with all of them.
"""

import argparse
import ast
import pathlib
import platform
import subprocess
import sys
import tempfile
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXTRAS = "train,notebooks,test"
PREPARE = "prepare"
# Where TensorFlow is kept to, for there it exists: elsewhere the tests that prepare data skip.
WHERE = 'sys_platform == "linux" and python_version < "3.14"'


def freeze(jax: str) -> tuple[list[str], list[str]]:
    """Installs everything beside the given JAX; returns sorted `name==version` lines.

    The first are those of training, notebooks and tests, the second what preparing data adds.
    """
    with tempfile.TemporaryDirectory() as folder:
        pip = _environment(folder)
        jaxes = (f"jax=={jax}", f"jaxlib=={jax}")
        without = _install(pip, f"{ROOT}[{EXTRAS}]", *jaxes)
        listed = _install(pip, f"{ROOT}[{EXTRAS},{PREPARE}]", *jaxes)
    if changed := sorted(without - listed):
        raise ValueError(f"TensorFlow wants other versions of {changed}; require those by hand")
    loose = [line for line in listed if "==" not in line]
    if loose:
        raise ValueError(f"not pinned to a version: {loose}; install them from a package index")
    added = sorted(listed - without, key=str.lower)
    return sorted(without, key=str.lower), [f"{line}; {WHERE}" for line in added]


def freeze_docs() -> list[str]:
    """Returns what the documentation adds to the pinned sets, as sorted `name==version` lines.

    pip fails where no version of a package satisfies all of the sets.
    """
    sets = sorted((ROOT / "requirements").glob("py*.txt"))
    with tempfile.TemporaryDirectory() as folder:
        listed = _install(
            _environment(folder), *(f"--constraint={path}" for path in sets), *_docs()
        )
    pinned = {line for path in sets for line in path.read_text(encoding="utf-8").splitlines()}
    setuptools = {line for line in listed if line.startswith("setuptools==")}  # the environment's
    return sorted(listed - pinned - setuptools, key=str.lower)


def _docs() -> list[str]:
    """Returns the extra `docs` of setup.py: without the library, and so without one JAX."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOCS":
            return ast.literal_eval(node.value)
    raise ValueError("setup.py has no list `DOCS`")


def _environment(folder: str) -> list[str]:
    """Makes an empty environment; returns the words that call its pip."""
    venv.create(folder, with_pip=True)
    return [str(pathlib.Path(folder, "bin", "python")), "-m", "pip"]


def _install(pip: list[str], *wanted: str) -> set[str]:
    """Installs packages and returns all `name==version` lines."""
    subprocess.run([*pip, "install", "--quiet", *wanted], check=True)
    # --all keeps setuptools, with which the tests build the wheel.
    listed = subprocess.run(
        [*pip, "freeze", "--all", "--exclude", "pip", "--exclude", "perceiver"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return set(listed.splitlines())


def _write(path: pathlib.Path, what: str, lines: list[str]) -> None:
    python = ".".join(platform.python_version_tuple()[:2])
    header = [
        f"# Written by `make pins` on Python {python}: {what}.",
        "# Change setup.py, then write it again; do not edit it by hand.",
    ]
    path.write_text("\n".join([*header, *lines]) + "\n", encoding="utf-8")
    print(f"wrote {path}", file=sys.stderr)


def main() -> None:
    """Parses the command line and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--jax", help="version of jax and jaxlib, such as 0.10.2")
    kind.add_argument("--docs", action="store_true", help="what the documentation adds")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="file to write")
    args = parser.parse_args()
    if args.docs:
        _write(args.out, "what perceiver[docs] adds to every other set", freeze_docs())
        return
    base, added = freeze(args.jax)
    beside = args.out.with_stem(f"{args.out.stem}-{PREPARE}")
    _write(args.out, f"perceiver[{EXTRAS}], jax {args.jax}", base)
    _write(beside, f"perceiver[{PREPARE}], jax {args.jax}", added)


if __name__ == "__main__":
    main()
