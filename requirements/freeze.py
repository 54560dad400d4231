"""Writes a complete pinned set: every package that a checkout installs, at one version each.

Installs the library with the extras for training, notebooks and tests into a fresh temporary
environment and records what came; then what preparing data adds to it, TensorFlow above all, which
goes into a file of its own, for the tests. Only the standard library is used.

    python3.11 requirements/freeze.py --jax 0.10.2 --out requirements/py311.txt

writes requirements/py311-prepare.txt too; `make pins` writes all.
"""

import argparse
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
        venv.create(folder, with_pip=True)
        pip = [str(pathlib.Path(folder, "bin", "python")), "-m", "pip"]
        without = _install(pip, EXTRAS, jax)
        listed = _install(pip, f"{EXTRAS},{PREPARE}", jax)
    if changed := sorted(without - listed):
        raise ValueError(f"TensorFlow wants other versions of {changed}; require those by hand")
    loose = [line for line in listed if "==" not in line]
    if loose:
        raise ValueError(f"not pinned to a version: {loose}; install them from a package index")
    added = sorted(listed - without, key=str.lower)
    return sorted(without, key=str.lower), [f"{line}; {WHERE}" for line in added]


def _install(pip: list[str], extras: str, jax: str) -> set[str]:
    """Installs the library with extras and returns all `name==version` lines."""
    wanted = [f"{ROOT}[{extras}]", f"jax=={jax}", f"jaxlib=={jax}"]
    subprocess.run([*pip, "install", "--quiet", *wanted], check=True)
    # --all keeps setuptools, with which the tests build the wheel.
    listed = subprocess.run(
        [*pip, "freeze", "--all", "--exclude", "pip", "--exclude", "perceiver"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return set(listed.splitlines())


def main() -> None:
    """Parses the command line and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jax", required=True, help="version of jax and jaxlib, such as 0.10.2")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="file to write")
    args = parser.parse_args()
    python = ".".join(platform.python_version_tuple()[:2])
    base, added = freeze(args.jax)
    beside = args.out.with_stem(f"{args.out.stem}-{PREPARE}")
    for path, extras, lines in ((args.out, EXTRAS, base), (beside, PREPARE, added)):
        header = [
            f"# Written by `make pins` on Python {python}: perceiver[{extras}], jax {args.jax}.",
            "# Change setup.py, then write it again; do not edit it by hand.",
        ]
        path.write_text("\n".join([*header, *lines]) + "\n", encoding="utf-8")
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
