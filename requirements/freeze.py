"""Writes a complete pinned set: every package that a checkout installs, at one version each.

Installs the library with the extras for training, notebooks and tests into a fresh temporary
environment and records what came. Only the standard library is used.

    python3.11 requirements/freeze.py --jax 0.10.2 --out requirements/py311.txt

`make pins` writes both sets.
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


def freeze(jax: str) -> list[str]:
    """Installs everything beside the given JAX and returns sorted `name==version` lines."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(pathlib.Path(folder, "bin", "python")), "-m", "pip"]
        wanted = [f"{ROOT}[{EXTRAS}]", f"jax=={jax}", f"jaxlib=={jax}"]
        subprocess.run([*pip, "install", "--quiet", *wanted], check=True)
        # --all keeps setuptools, with which the tests build the wheel.
        listed = subprocess.run(
            [*pip, "freeze", "--all", "--exclude", "pip", "--exclude", "perceiver"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.splitlines()
    loose = [line for line in listed if "==" not in line]
    if loose:
        raise ValueError(f"not pinned to a version: {loose}; install them from a package index")
    return sorted(listed, key=str.lower)


def main() -> None:
    """Parses the command line and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jax", required=True, help="version of jax and jaxlib, such as 0.10.2")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="file to write")
    args = parser.parse_args()
    python = ".".join(platform.python_version_tuple()[:2])
    header = [
        f"# Written by `make pins` with Python {python}: perceiver[{EXTRAS}] on jax {args.jax}.",
        "# Change setup.py, then write it again; do not edit it by hand.",
    ]
    args.out.write_text("\n".join([*header, *freeze(args.jax)]) + "\n", encoding="utf-8")
    print(f"wrote {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
