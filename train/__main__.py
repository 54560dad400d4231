"""`python -m train --config=configs/digits.py[:VARIANT] --workdir=DIR [--config.FIELD=VALUE ...]`.

`--workdir` is the folder of the run; a run that was interrupted goes on from where it stopped.
`configs/common.py` lists all fields.
"""

import difflib
import pathlib
import runpy
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from train import workdir

_CONFIG = config_flags.DEFINE_config_file("config", None, "config file:variant", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")


def main(arguments: list[str]) -> None:
    """Trains."""
    if len(arguments) > 1:
        raise app.UsageError(f"unexpected words on the command line: {' '.join(arguments[1:])}")
    logging.set_verbosity(logging.WARNING)  # JAX tells which backends it did not find, at INFO
    from train import loop  # after the flags are known to be good: JAX takes seconds to import

    try:
        loop.run(_CONFIG.value, _WORKDIR.value)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"\n{type(error).__name__}: {error}")


def check(arguments: Sequence[str]) -> None:
    """Raises ValueError for a config, variant or field that does not exist.

    ml_collections finds these too, but ends in a traceback that names neither place nor remedy.
    """
    sources = [word.partition("=")[2] for word in arguments if word.startswith("--config=")]
    if not sources:
        return  # the flags parser says that --config is missing
    path, _, variant = sources[-1].partition(":")
    if not pathlib.Path(path).is_file():
        known = ", ".join(sorted(map(str, pathlib.Path("configs").glob("[!_]*.py"))))
        raise ValueError(f"--config={path}: no such file; here are {known}")
    config = runpy.run_path(path)["get_config"](variant)
    fields = [name for name, _ in workdir.leaves(config)]
    for word in arguments:
        name = word.removeprefix("--config.").partition("=")[0]
        if word.startswith("--config.") and name not in fields:
            near = difflib.get_close_matches(name, fields, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "see configs/common.py"
            raise ValueError(f"{word}: the config has no field {name!r}; {hint}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    try:
        check(sys.argv[1:])
    except ValueError as problem:
        sys.exit(str(problem))
    app.run(main)
